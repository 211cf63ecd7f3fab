"""``rf-jobs worker``: runs jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import click

from rf_jobs.cli import output
from rf_jobs.cli.following import exit_with_parent, follow
from rf_jobs.cli.importing import import_jobs, require_jobs
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.client.queue import configure_by_default
from rf_jobs.telemetry import logs
from rf_jobs.words.config_settings import Settings
from rf_jobs.worker.child import Attach
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@exit_with_parent
@settings_options("jobs", "telemetry", "worker", "security")
@common()
def worker(session: Session, modules: tuple[str, ...], parent: int | None) -> int:
    """Run jobs, in supervised processes, until SIGTERM or Ctrl-C.

    MODULE... are imported: they define the job classes (also `imports` in [jobs]). The first signal stops in order:
    running jobs get shutdown_timeout, the rest is handed back. The second hands back at once, the third kills.
    """
    settings = session.settings
    logs.set_up(verbose=session.verbose, as_json=session.json or settings.telemetry.log_format == "json")
    require_jobs(import_jobs(session, modules))
    follow(parent)
    code = supervise(settings)
    if session.json:
        output.document({"exit_code": code})
    return code


def supervise(settings: Settings) -> int:
    """Run a supervisor with the effective settings; answers with its exit code. Raises ``BackendError``."""
    from rf_jobs.worker.supervisor import Supervisor  # noqa: PLC0415 (--help needs none of it)

    return Supervisor(WorkerConfig(settings.worker), settings, attach=wiring(settings)).run()


def wiring(settings: Settings) -> Attach:
    """What belongs around a pool, in its own process: telemetry, as far as it is on, and the manager as the one that
    ``Queue`` uses in handlers, unless the application's modules have configured another."""

    @asynccontextmanager
    async def attach(pool: WorkerPool) -> AsyncGenerator[None, None]:
        from rf_jobs.telemetry import telemetry  # noqa: PLC0415 (loaded in the child, and only there)

        async with telemetry(pool.manager, settings.telemetry, pool=pool):
            configure_by_default(pool.manager)
            yield

    return attach
