"""Puts a process's telemetry together: who subscribes to what, in which order it starts and ends."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from rf_jobs.client.manager import QueueManager
from rf_jobs.model.jobclass import Registry
from rf_jobs.model.jobclass import registry as default_registry
from rf_jobs.telemetry.cells import MetricStore
from rf_jobs.telemetry.flush import Flusher
from rf_jobs.telemetry.logs import LifecycleLog
from rf_jobs.telemetry.metrics import Metrics
from rf_jobs.telemetry.probes import Probes, Render
from rf_jobs.telemetry.schedule_metrics import ScheduleMetrics
from rf_jobs.telemetry.sharing import Share
from rf_jobs.telemetry.workflow_metrics import WorkflowMetrics
from rf_jobs.words.config_settings import TelemetrySettings, WorkerSettings
from rf_jobs.words.ids import new_token
from rf_jobs.words.version import package_version

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider


class Configured(Protocol):
    """What a pool was configured with."""

    @property
    def settings(self) -> WorkerSettings: ...


class Pool(Protocol):
    """The part of a ``WorkerPool`` that telemetry needs; it stands beside the workers and does not know them."""

    id: str
    port: int

    @property
    def config(self) -> Configured: ...
    @property
    def queues(self) -> tuple[str, ...]: ...
    def stalled(self) -> str: ...


@asynccontextmanager
async def telemetry(
    manager: QueueManager, settings: TelemetrySettings, *, pool: Pool | None = None, registry: Registry = default_registry,
    tracer_provider: TracerProvider | None = None, readings: str = "",
) -> AsyncGenerator[None, None]:  # fmt: skip
    """All telemetry of one process, for one manager.

    Enter it before ``pool.start()`` and leave it after ``pool.shutdown()``, so that the first and the last event are
    told; leaving it sends what is left. In a process that only dispatches there is no ``pool``. Spans go to
    ``tracer_provider``, else to the global one, else to ``otlp_endpoint``, else nowhere, at no cost. Enter it in the
    process that it is for, after a fork. ``readings`` is where a supervised process gives its metrics to its supervisor's page.
    Raises ``ConfigError`` where an extra is missing, ``WorkerError`` where the
    worker's HTTP port can't be had.
    """
    cells = MetricStore(max_series_per_metric=settings.max_series_per_metric, max_job_classes=settings.max_job_classes)
    async with AsyncExitStack() as stack:
        if settings.metrics and readings:
            share = Share(cells, readings, lambda: manager.store.server.version)
            await share.start()
            stack.push_async_callback(share.aclose)  # first, so that it ends last: everything is counted then
        if settings.metrics:
            known = known_pairs(registry, manager.settings.jobs.default_queue, pool.queues if pool else ())
            metrics = Metrics(manager.bus, cells, worker=pool is not None, known=known)
            source = pool.id if pool is not None else f"d{new_token()}"
            await _start_flushing(stack, Flusher(manager.store, cells, source, settings.flush_seconds))
            stack.callback(metrics.close)
            stack.callback(ScheduleMetrics(manager.bus, cells).close)
            stack.callback(WorkflowMetrics(manager.bus, cells).close)
        if settings.tracing:
            await _start_tracing(stack, manager, settings, cells, tracer_provider)
        lines = LifecycleLog(manager.bus, redact=settings.redact_exceptions)
        stack.callback(lines.close)
        if pool is not None and pool.config.settings.http_port is not None:
            render = _renderer(manager, cells, settings.metric_namespace) if settings.metrics else None
            await _serve(stack, pool, render)
        yield


def known_pairs(registry: Registry, default_queue: str, served: Iterable[str]) -> list[tuple[str, str]]:
    """The (queue, class) pairs that can be known at the start: each class on its own queue, if that is served here."""
    names = set(served)
    found = []
    for name in registry.names():
        queue = registry.get(name).options.queue or default_queue
        if not names or queue in names:
            found.append((queue, name))
    return found


async def _start_flushing(stack: AsyncExitStack, flusher: Flusher) -> None:
    task = asyncio.create_task(flusher.run(), name="rf-jobs-flush", context=contextvars.Context())

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await flusher.close()

    stack.push_async_callback(stop)


async def _start_tracing(
    stack: AsyncExitStack, manager: QueueManager, settings: TelemetrySettings, cells: MetricStore,
    given: TracerProvider | None,
) -> None:  # fmt: skip
    from rf_jobs.telemetry.providers import find_providers  # noqa: PLC0415 (only where spans may be recorded)

    providers = find_providers(settings, cells, given)
    if providers is None:
        return
    from rf_jobs.telemetry.tracing import Tracing  # noqa: PLC0415

    tracing = Tracing(manager, settings, providers, cells, package_version())
    stack.push_async_callback(tracing.aclose)


async def _serve(stack: AsyncExitStack, pool: Pool, render: Render | None) -> None:
    probes = Probes(pool.stalled, render)
    stack.push_async_callback(probes.aclose)
    worker = pool.config.settings
    pool.port = await probes.start(worker.http_host, worker.http_port or 0)


def _renderer(manager: QueueManager, cells: MetricStore, namespace: str) -> Render:
    def page(accept: str) -> tuple[bytes, str]:
        # At the first scrape: a worker that nobody scrapes never loads it.
        from prometheus_client import REGISTRY  # noqa: PLC0415

        from rf_jobs.telemetry import exposition  # noqa: PLC0415

        # The library's own registry has the process, the garbage collector, and the application's metrics.
        build = exposition.build_info(manager.store.server.version)
        ours = exposition.MetricsCollector(cells, lambda: [build], namespace=namespace)
        return exposition.render(exposition.Together(ours, REGISTRY), accept)

    return lambda accept: asyncio.to_thread(page, accept)  # it may take 100 ms
