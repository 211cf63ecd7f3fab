"""One value of one setting: from text or TOML to its type, or a ``ConfigError`` that says what was expected."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import inspect

from rf_jobs.words.config_keys import Key
from rf_jobs.words.config_secrets import mask_url
from rf_jobs.words.config_sets import read_sets, sets_as_text
from rf_jobs.words.config_settings import NO_LIMIT, WorkerSet
from rf_jobs.words.errors import ConfigError, InvalidOption
from rf_jobs.words.ids import is_namespace, queue_name
from rf_jobs.words.secret_keys import mask_keys, parse_keys

REDIS_SCHEMES = ("redis", "rediss", "unix")

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_NOTHING = ("", "none", "null")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*\Z")
_SHOWN = 200


def convert(key: Key, value: object, origin: str) -> object:
    """``value`` as the type of ``key``; text (variables, arguments) is parsed, anything else must fit as it is.

    Raises ``ConfigError`` with the value, the key, the origin and the expected form.
    """
    try:
        read = _READERS.get(key.path)
        if read is not None:
            return read(value)
        parsed = _parse(key, value.strip()) if isinstance(value, str) else value
        # The annotation's own constraints (ranges, choices) are msgspec's to check.
        result: object = msgspec.convert(parsed, key.annotation, strict=not isinstance(value, str))
        check = _CHECKS.get(key.path)
        return result if check is None or result is None else check(result)
    except (msgspec.ValidationError, ValueError, InvalidOption) as error:
        reason = "" if isinstance(error, msgspec.ValidationError) else f" ({error})"
        raise ConfigError(
            f"{key.path} is {shown_of(key, value)} (from {origin}){reason}; expected {expected_form(key)}"
        ) from None


def shown(value: object) -> str:
    """``value`` as text for an error or a listing: secrets masked, not endless."""
    if isinstance(value, tuple) and value and all(isinstance(each, WorkerSet) for each in value):
        text = sets_as_text(value)
    else:
        text = repr(mask_url(value)) if isinstance(value, str) else mask_url(repr(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def shown_of(key: Key, value: object) -> str:
    """The value of one setting as text that may be printed."""
    return shown(mask_keys(value) if key.is_secret else value)


def expected_form(key: Key) -> str:
    """What a value of ``key`` looks like, in words."""
    return _FORMS.get(key.path) or _form(inspect.type_info(key.annotation))


def _parse(key: Key, text: str) -> object:
    """Text as what TOML would have given, as far as the type needs it."""
    kinds = _kinds(inspect.type_info(key.annotation))
    if inspect.NoneType in kinds and text.lower() in _NOTHING:
        return None
    if inspect.BoolType in kinds:
        return _WORDS.get(text.lower(), text)
    if inspect.VarTupleType in kinds:
        items = [item.strip() for item in text.split(",") if item.strip()]
        weighted = inspect.DictType in kinds and any("=" in item for item in items)
        return _weights(items) if weighted else items
    if inspect.DictType in kinds:
        return _weights([item.strip() for item in text.split(",") if item.strip()])
    return text


def _weights(items: list[str]) -> dict[str, int]:
    pairs = [item.partition("=") for item in items]
    weights = {name.strip(): int(weight) for name, _, weight in pairs if weight.strip().isdecimal()}
    if len(weights) != len(items):
        raise ValueError("each queue needs one number")
    return weights


def _kinds(info: inspect.Type) -> set[type[inspect.Type]]:
    if isinstance(info, inspect.Metadata):
        return _kinds(info.type)
    if isinstance(info, inspect.UnionType):
        return {kind for member in info.types for kind in _kinds(member)}
    return {type(info)}


def _form(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata():
            return _form(info.type)
        case inspect.UnionType():
            members = [_form(member) for member in info.types if not isinstance(member, inspect.NoneType)]
            return f"{' or '.join(members)}, or left out"
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return f"a whole number{_range(info)}"
        case inspect.FloatType():
            return f"a number{_range(info)}"
        case inspect.LiteralType():
            return f"one of {', '.join(map(str, info.values))}"
        case inspect.VarTupleType():
            return "a list of strings (in a variable: separated by commas)"
        case _:
            return "text" if isinstance(info, inspect.StrType) and not info.min_length else "text that is not empty"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    lower = f"at least {info.ge}" if info.ge is not None else f"more than {info.gt}"
    return f", {lower}" if info.le is None or info.le >= NO_LIMIT else f", {lower} and at most {info.le}"


def _redis_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in REDIS_SCHEMES:
        raise ValueError(f"the scheme is {parts.scheme!r}")
    if parts.scheme == "unix" and not parts.path:
        raise ValueError("it has no path")
    if parts.scheme != "unix" and not parts.hostname:
        raise ValueError("it has no host")
    _port_of(value)
    return value


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("it has no http(s) scheme or no host")
    _port_of(value)
    return value


def _port_of(value: str) -> None:
    try:
        _ = urlsplit(value).port
    except ValueError:  # its own message would quote what may be a piece of the password
        raise ValueError("the port is not a number up to 65535; is the password percent-encoded?") from None


def _namespace(value: str) -> str:
    if not is_namespace(value):
        raise ValueError("it becomes a part of every key")
    return value


def _timezone(value: str) -> str:
    if value == "UTC":  # needs no database, which slim images lack
        return value
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone; slim systems need the package tzdata") from None
    return value


def _modules(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _MODULE.match(name):
            raise ValueError(f"{name!r} is not the name of a module")
    return value


def _queues(value: tuple[str, ...] | Mapping[str, int]) -> tuple[str, ...] | Mapping[str, int]:
    for name in value:
        queue_name(name)
    if isinstance(value, Mapping):
        if any(weight < 1 for weight in value.values()):
            raise ValueError("a weight is less than 1")
    elif len(set(value)) != len(value):
        raise ValueError("a queue is named twice")
    return value


def _placed(value: Mapping[str, int]) -> Mapping[str, int]:
    for name in value:
        queue_name(name)
    return value


_READERS: dict[str, Callable[[object], object]] = {"jobs.worker.sets": read_sets}
"""Settings that have a form of their own."""


def _secret_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    parse_keys(value)
    return value


def _importable(value: str) -> str:
    module, _, name = value.partition(":")
    if not _MODULE.match(module) or not name.isidentifier():
        raise ValueError("it names no module and no name in it")
    return value


def _importables(value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(_importable, value))


_CHECKS: dict[str, Callable[[Any], object]] = {
    "jobs.redis_url": _redis_url,
    "jobs.namespace": _namespace,
    "jobs.default_queue": queue_name,
    "jobs.queue_shards": _placed,
    "jobs.imports": _modules,
    "jobs.offload_store": _importable,
    "jobs.middleware": _importables,
    "jobs.security.encryption_keys": _secret_keys,
    "jobs.security.signing_keys": _secret_keys,
    "jobs.worker.queues": _queues,
    "jobs.scheduler.timezone": _timezone,
    "jobs.telemetry.otlp_endpoint": _http_url,
}
"""What a type alone cannot say."""

_KEYS_FORM = "a list of id:base64 with 32 bytes each (in a variable: separated by commas); `rf-jobs keys new` makes one"
_FORMS: dict[str, str] = {
    "jobs.redis_url": f"a URL with one of the schemes {', '.join(REDIS_SCHEMES)}, such as redis://127.0.0.1:6379/0",
    "jobs.namespace": "1 to 64 of the letters A-Z a-z, digits, and _ . - /",
    "jobs.default_queue": "the name of a queue",
    "jobs.queue_shards": "queues with the numbers of their shards, such as {emails = 1} (in a variable: emails=1,reports=3)",
    "jobs.imports": "a list of module names, such as myapp.jobs (in a variable: separated by commas)",
    "jobs.worker.queues": 'names in their order, such as ["emails", "default"] (in a variable: emails,default), or weights'
    " of at least 1, such as {high = 5, low = 1} (in a variable: high=5,low=1)",
    "jobs.worker.sets": "tables [[jobs.worker.sets]] with name, queues, workers, max_concurrent_jobs, processes (in a variable:"
    " mail: queues=emails,sms processes=1 workers=8; rest: queues=default)",
    "jobs.scheduler.timezone": "an IANA time zone, such as Europe/Paris or UTC",
    "jobs.middleware": "a list of module:name, such as myapp.around:Tenancy (in a variable: separated by commas)",
    "jobs.offload_store": "module:name, such as myapp.payloads:store, or left out",
    "jobs.security.encryption_keys": _KEYS_FORM,
    "jobs.security.signing_keys": _KEYS_FORM,
    "jobs.telemetry.otlp_endpoint": "an http:// or https:// URL, or left out",
    "jobs.telemetry.metric_namespace": "letters, digits and _, not a digit first, or nothing",
}
