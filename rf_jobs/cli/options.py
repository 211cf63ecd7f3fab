"""Options: the common ones, those made from the tables of settings, and types of arguments."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

import click

from rf_jobs.cli.session import Session, session_of
from rf_jobs.words.config_keys import KEYS, Key
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.timing import seconds

F = TypeVar("F", bound=Callable[..., Any])
COMMON = ("jobs.redis_url", "jobs.namespace")

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def duration(text: str) -> float:
    """Seconds, or numbers with units: ``90``, ``1.5h``, ``1h30m``."""
    try:
        return seconds(_seconds_in(text.strip().lower()), "duration")
    except (ValueError, InvalidOption) as error:
        raise click.BadParameter(
            f"{text!r} is no duration ({error}); give seconds, or numbers with ms, s, m, h, d or w, such as 1h30m"
        ) from None


def _seconds_in(text: str) -> float:
    if re.fullmatch(r"[-+]?\d+(\.\d*)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("it cannot be read")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def moment(text: str) -> datetime:
    """An ISO 8601 time; without a time zone, this host's."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time; give ISO 8601, such as 2030-01-31T08:00 or 2030-01-31T08:00:00+02:00"
        ) from None
    return found.astimezone() if found.tzinfo is None else found


def settings_options(*sections: str, skip: tuple[str, ...] = ()) -> Callable[[F], F]:
    """An option for every setting of these sections, of the same name. A name that two sections have is the later one's. Keys
    have none: whoever lists the processes would read them."""
    chosen: dict[str, Key] = {}
    for section in sections:
        chosen |= {
            key.name: key
            for key in KEYS.values()
            if key.section == section and key.path not in (*COMMON, *skip) and not key.is_secret
        }

    def decorate(function: F) -> F:
        for key in reversed(chosen.values()):
            function = setting_option(key.path)(function)
        return function

    return decorate


def setting_option(path: str, *, hidden: bool = False) -> Callable[[F], F]:
    """The option for one setting."""
    key = KEYS[path]
    name = "--" + key.name.replace("_", "-")

    def remember(ctx: click.Context, _: click.Parameter, value: object) -> None:
        session_of(ctx).overrides[path] = value

    flag = isinstance(key.default, bool)
    return click.option(
        f"{name}/--no-{name[2:]}" if flag else name,
        f"setting_{path.replace('.', '_')}",
        default=None,
        metavar=None if flag else _metavar(key),
        help=_help(key),
        expose_value=False,
        callback=remember,
        hidden=hidden,
    )


def _metavar(key: Key) -> str:
    match key.default:
        case float():
            return "SECONDS" if key.name.endswith("_seconds") else "NUMBER"
        case int():
            return "N"
        case tuple():
            return "NAMES"
        case _:
            return "VALUE"


def _help(key: Key) -> str:
    default = ",".join(key.default) if isinstance(key.default, tuple) else key.default
    shown = (
        "" if default in (None, "") else f"; default {str(default).lower() if isinstance(default, bool) else default}"
    )
    sentence = key.description[:1].upper() + key.description[1:]
    return f"{sentence}  [{key.variable}{shown}]"


def common(*, server: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """What every command takes. The command gets the ``Session`` as its first argument. ``server=False`` is for one that
    uses no server but its own: it takes no settings, and no file of them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def command(*args: Any, **options: Any) -> Any:
            session = session_of(click.get_current_context())
            if session.verbose:
                from rf_jobs.telemetry import logs  # noqa: PLC0415 (most commands need none)

                logs.set_up(verbose=True)
            return function(session, *args, **options)

        wrapped: Callable[..., Any] = command
        for option in _flags():
            wrapped = option(wrapped)
        if server:
            wrapped = _config_option()(wrapped)
            for path in reversed(COMMON):
                wrapped = setting_option(path)(wrapped)
        return wrapped

    return decorate


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def remember(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        setattr(session_of(ctx), name, value)

    return remember


def _flags() -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    verbose, as_json = "Say more; show tracebacks.", "Answer with one JSON document."
    return [
        click.option("-v", "--verbose", is_flag=True, expose_value=False, callback=_keep("verbose"), help=verbose),
        click.option("--json", is_flag=True, expose_value=False, callback=_keep("json"), help=as_json),
    ]


def _config_option() -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    help_text = "Read this file instead.  [RF_JOBS_CONFIG]"
    return click.option("--config", metavar="FILE", expose_value=False, callback=_keep("config"), help=help_text)


def paging(function: F) -> F:
    """--limit and --offset."""
    offset: Callable[[F], F] = click.option(
        "--offset", type=click.IntRange(0), default=0, show_default=True, help="Leave out so many."
    )
    limit: Callable[[F], F] = click.option(
        "--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Show so many."
    )
    return limit(offset(function))


def confirmation(function: F) -> F:
    """--yes."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def confirm(session: Session, question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone. Without a terminal, --yes is the only answer."""
    if yes:
        return
    if session.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError(f"{question} There is nobody to ask; add --yes.")
    click.confirm(question, abort=True, err=True)
