"""``rf-jobs worker``: runs jobs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import click

from rf_jobs.cli import output
from rf_jobs.cli.importing import import_jobs, require_jobs
from rf_jobs.cli.options import common, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.telemetry import logs
from rf_jobs.words.config_settings import Settings
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool

Attach = Callable[[WorkerPool], AbstractAsyncContextManager[None]]


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@settings_options("jobs", "telemetry", "worker", "security")
@common()
def worker(session: Session, modules: tuple[str, ...]) -> int:
    """Run jobs, in supervised processes, until SIGTERM or Ctrl-C.

    MODULE... are imported: they define the job classes (also `imports` in [jobs]). The first signal stops in order:
    running jobs get shutdown_timeout, the rest is handed back. The second hands back at once, the third kills.
    """
    settings = session.settings
    logs.set_up(verbose=session.verbose, as_json=session.json or settings.telemetry.log_format == "json")
    require_jobs(import_jobs(session, modules))
    code = supervise(settings)
    if session.json:
        output.document({"exit_code": code})
    return code


def supervise(settings: Settings) -> int:
    """Run a supervisor with the effective settings; answers with its exit code. Raises ``BackendError``."""
    from rf_jobs.worker.supervisor import Supervisor  # noqa: PLC0415 (--help needs none of it)

    return Supervisor(WorkerConfig(settings.worker), settings, attach=telemetry_for(settings)).run()


def telemetry_for(settings: Settings) -> Attach | None:
    """What wires telemetry to a pool, in its own process; None where all of it is off, and then nothing is loaded."""
    wanted = settings.telemetry
    if not wanted.metrics and not wanted.tracing and settings.worker.http_port is None:
        return None

    @asynccontextmanager
    async def attach(pool: WorkerPool) -> AsyncGenerator[None, None]:
        from rf_jobs.telemetry import telemetry  # noqa: PLC0415 (loaded in the child, and only there)

        async with telemetry(pool.manager, wanted, pool=pool):
            yield

    return attach
