"""OpenTelemetry tracing: a middleware around dispatches and handlers, and subscribers for all other transitions.

Where nothing records there is no ``Tracing``. docs/telemetry.md has the table of spans.
"""

from __future__ import annotations

from typing import Any, Self

from opentelemetry.context import attach, detach, set_value

from rf_jobs.client.manager import QueueManager
from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import Envelope, Headers
from rf_jobs.model.events import DispatchRejected, JobDeduplicated, JobDispatched, JobOutboxed
from rf_jobs.model.middleware import Handle, Middleware
from rf_jobs.telemetry.attempt_spans import AttemptSpans
from rf_jobs.telemetry.cells import MetricStore
from rf_jobs.telemetry.dispatch_spans import DispatchSpans
from rf_jobs.telemetry.lane_spans import LaneSpans
from rf_jobs.telemetry.lifecycle_spans import LifecycleSpans
from rf_jobs.telemetry.lookup import Lookup
from rf_jobs.telemetry.providers import Providers
from rf_jobs.telemetry.sampling import Sampling
from rf_jobs.telemetry.schedule_spans import ScheduleSpans
from rf_jobs.telemetry.spans import SpanWriter
from rf_jobs.telemetry.workflow_spans import WorkflowSpans
from rf_jobs.words.config_settings import TelemetrySettings


class Tracing(Middleware):
    """One process's tracing of one manager. Starts when it is made; ``aclose`` writes what is left and stops. What was
    not answered by the store when the process dies is not written."""

    def __init__(
        self, manager: QueueManager, settings: TelemetrySettings, providers: Providers, cells: MetricStore, version: str
    ) -> None:  # fmt: skip
        self._providers = providers
        sampling = Sampling(settings.sample_ratio, settings.max_spans_per_second)
        writer = SpanWriter(
            providers.tracer, providers.logger, sampling, cells,
            version=version, redis_url=manager.settings.jobs.redis_url, redact=settings.redact_exceptions,
            by_class=settings.span_name == "class",
        )  # fmt: skip
        self._lookup = Lookup(manager.store)
        self._dispatches = DispatchSpans(writer, self._lookup)
        lane = None
        if providers.lane is not None:
            lane = LaneSpans(providers.lane, writer.name, writer.attributes, links=settings.trace != "new")
        self._attempts = AttemptSpans(writer, settings.trace, lane=lane)
        self._lifecycle = LifecycleSpans(manager.bus, writer, self._attempts, self._lookup, settings.trace)
        bus = manager.bus
        self._schedules = ScheduleSpans(bus, writer)
        self._workflows = WorkflowSpans(bus, writer, self._lookup)
        self._ends = [
            bus.subscribe(JobDispatched, self._dispatches.dispatched),
            bus.subscribe(JobOutboxed, self._dispatches.outboxed),
            bus.subscribe(JobDeduplicated, self._dispatches.deduplicated),
            bus.subscribe(DispatchRejected, self._dispatches.rejected),
        ]
        self._manager = manager
        if not settings.trace_redis:
            manager.store.surround = Suppressed
        self._open = True
        manager.middleware.add(self)

    # --- the middleware ------------------------------------------------------------------------------------------

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        """Give it its creation context."""
        if self._open:
            self._dispatches.prepare(envelope, headers)

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        """Run it in its span."""
        if not self._open:
            return await handle()
        return await self._attempts.around(ctx, handle)

    async def around_batch(self, count: int, send: Handle) -> Any:
        """Send them in one span."""
        if not self._open:
            return await send()
        return await self._dispatches.around_batch(count, send)

    # --- the end -------------------------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Write what is left, send it, and stop."""
        await self._lookup.aclose()
        self._lifecycle.close()
        self._schedules.close()
        self._workflows.close()
        for end in self._ends:
            end()
        self._open = False
        self._dispatches.close()
        self._attempts.close()
        await self._providers.aclose()


class Suppressed:
    """While it is entered, an instrumented Redis client makes no spans: each fetch would be a trace of its own."""

    __slots__ = ("_token",)

    def __enter__(self) -> Self:
        self._token = attach(set_value("suppress_instrumentation", True))
        return self

    def __exit__(self, *exc: object) -> None:
        detach(self._token)
