"""``rf-jobs worker``: runs jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from rf_jobs.cli import output
from rf_jobs.cli.following import exit_with_parent, follow
from rf_jobs.cli.importing import named_modules
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session, session_of
from rf_jobs.model.importing import require_jobs
from rf_jobs.telemetry import logs
from rf_jobs.words.config_keys import KEYS
from rf_jobs.words.config_settings import Settings
from rf_jobs.worker.config import WorkerConfig

SETS = "jobs.worker.sets"
SCHEDULER = "jobs.scheduler.enabled"
F = TypeVar("F", bound=Callable[..., Any])


def sets_option(function: F) -> F:
    """--set, once for each set; where it is given, the sets of the configuration do not hold."""

    def keep(ctx: click.Context, _: click.Parameter, sets: tuple[str, ...]) -> None:
        session_of(ctx).overrides[SETS] = "; ".join(sets) or None

    text = (
        "Queues with processes of their own, such as 'mail: queues=emails,sms processes=1 workers=8'; may be repeated."
    )
    return click.option(
        "--set",
        metavar="SET",
        multiple=True,
        expose_value=False,
        callback=keep,
        help=f"{text}  [{KEYS[SETS].variable}]",
    )(function)


def scheduler_option(function: F) -> F:
    """--scheduler."""

    def keep(ctx: click.Context, _: click.Parameter, wanted: bool | None) -> None:
        session_of(ctx).overrides[SCHEDULER] = wanted

    text = f"Keep the schedules too; those of each Scheduler in MODULE...  [{KEYS[SCHEDULER].variable}; default false]"
    return click.option("--scheduler/--no-scheduler", default=None, expose_value=False, callback=keep, help=text)(
        function
    )


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@sets_option
@scheduler_option
@exit_with_parent
@settings_options("jobs", "telemetry", "worker", "security", skip=(SETS,))
@common()
def worker(session: Session, modules: tuple[str, ...], parent: int | None) -> int:
    """Run jobs, in supervised processes, until SIGTERM or Ctrl-C.

    MODULE... are imported in each process: they define the job classes (also `imports` in [jobs]). The first signal stops
    in order: running jobs get shutdown_timeout, the rest is handed back. The second hands back at once, the third kills.
    SIGHUP replaces the processes one by one by new ones, with the code as it is then. SIGTSTP quiets them: no more jobs are
    taken.
    """
    settings = session.settings
    as_json = session.json or settings.telemetry.log_format == "json"
    logs.set_up(verbose=session.verbose, as_json=as_json)
    named = named_modules(session, modules)
    if not named:
        require_jobs(named)
    follow(parent)
    code = supervise(settings, named, verbose=session.verbose, as_json=as_json)
    if session.json:
        output.document({"exit_code": code})
    return code


def supervise(settings: Settings, modules: list[str], *, verbose: bool, as_json: bool) -> int:
    """Run a supervisor with the effective settings; answers with its exit code. Raises ``BackendError``, ``ConfigError`` and
    ``WorkerError``, as ``Supervisor.run`` does."""
    from rf_jobs.worker.supervisor import Supervisor  # noqa: PLC0415 (--help needs none of it)

    settings = replace(
        settings,
        jobs=replace(settings.jobs, imports=tuple(modules)),
        telemetry=replace(settings.telemetry, log_format="json" if as_json else "text"),
    )
    equip = f"rf_jobs.cli.equipment:{'equip_verbose' if verbose else 'equip'}"
    return Supervisor(WorkerConfig(settings.worker), settings, equip=equip, page="rf_jobs.cli.page").run()
