"""What each process of ``rf-jobs worker`` is equipped with: logging, the job classes, telemetry. Named by the supervisor, run in
its children."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext

from rf_jobs.client.queue import configure_by_default
from rf_jobs.model.importing import import_modules, require_jobs
from rf_jobs.telemetry import logs
from rf_jobs.worker.commission import Attach, Commission
from rf_jobs.worker.pool import WorkerPool
from rf_jobs.worker.scheduler import Scheduler, scheduler_of


def equip(commission: Commission) -> Attach:
    """Log to standard error, import the modules that define the job classes, and wire telemetry around the pool. Raises
    ``ConfigError``."""
    return _equip(commission, verbose=False)


def equip_verbose(commission: Commission) -> Attach:
    """The same, and say more."""
    return _equip(commission, verbose=True)


def _equip(commission: Commission, *, verbose: bool) -> Attach:
    settings = commission.settings
    logs.set_up(verbose=verbose, as_json=settings.telemetry.log_format == "json")
    import_modules(settings.jobs.imports)
    require_jobs(settings.jobs.imports)
    return wiring(commission)


def wiring(commission: Commission) -> Attach:
    """What belongs around a pool, in its own process: telemetry, as far as it is on, and the manager as the one that
    ``Queue`` uses in handlers, unless the application's modules have configured another."""

    @asynccontextmanager
    async def attach(pool: WorkerPool) -> AsyncGenerator[None, None]:
        from rf_jobs.telemetry import telemetry  # noqa: PLC0415 (not before the modules: they may set a tracer provider)

        wanted = commission.settings.telemetry
        async with telemetry(pool.manager, wanted, pool=pool, readings=commission.readings):
            configure_by_default(pool.manager)
            async with _scheduler(commission, pool) or nullcontext():
                yield

    return attach


def _scheduler(commission: Commission, pool: WorkerPool) -> Scheduler | None:
    """The scheduler inside of a worker, where one is wanted. Its first process alone has one: were it to die, another takes its
    place at once, and whatever else schedules goes on."""
    if not commission.settings.scheduler.enabled or commission.name.rpartition("/")[2] != "0":
        return None
    return scheduler_of(pool.manager, commission.settings.jobs.imports)
