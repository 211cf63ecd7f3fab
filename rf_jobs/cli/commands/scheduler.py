"""``rf-jobs scheduler``: dispatches jobs when their schedules say so."""

from __future__ import annotations

import asyncio
import signal

import click

from rf_jobs.cli import output
from rf_jobs.cli.following import exit_with_parent, follow
from rf_jobs.cli.importing import import_jobs
from rf_jobs.cli.options import common, setting_option, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.client.manager import QueueManager
from rf_jobs.telemetry import logs
from rf_jobs.worker.scheduler import scheduler_of


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@exit_with_parent
@setting_option("jobs.scheduler.timezone")
@settings_options("telemetry", "security")
@common()
def scheduler(session: Session, modules: tuple[str, ...], parent: int | None) -> None:
    """Keep the schedules and dispatch what is due, until SIGTERM or Ctrl-C. Runs no job: workers do.

    MODULE... are imported (also `imports` in [jobs]): the schedules of each `Scheduler` that is among their names are kept.
    Schedules that were added at run time are in the store already. Run as many as you like: each tick is dispatched once,
    and if one dies the others go on.
    """
    logs.set_up(verbose=session.verbose, as_json=session.json or session.settings.telemetry.log_format == "json")
    named = import_jobs(session, modules)
    follow(parent)
    asyncio.run(_run(session, named))
    if session.json:
        output.document({"exit_code": 0})


async def _run(session: Session, modules: list[str]) -> None:
    from rf_jobs.telemetry import telemetry  # noqa: PLC0415 (not before the modules: they may set a tracer provider)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with (
        QueueManager(session.settings) as manager,
        telemetry(manager, session.settings.telemetry),
        scheduler_of(manager, modules),
    ):
        await stop.wait()
