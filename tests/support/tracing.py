"""A worker whose spans are looked at: a real one on a real server, spans into memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import SpanContext

from rf_jobs import Discard, Fail, Job, JobContext, QueueManager, Retry, Settings, Snooze, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.telemetry import telemetry
from rf_jobs.words.config_settings import JobsSettings, TelemetrySettings

seen: list[SpanContext] = []
"""The span that was current in each handler."""


class Traced(Job, queue="traced", backoff=0, max_attempts=2):
    do: str = ""

    async def handle(self, ctx: JobContext) -> str:
        seen.append(trace.get_current_span().get_span_context())
        match self.do:
            case "fail":
                ctx.log("about to fail")
                raise ValueError("card 4111")
            case "fail once" if ctx.attempt == 1:
                raise ValueError("card 4111")
            case "fail for good":
                raise Fail("no use")
            case "ask for another try" if ctx.attempt == 1:
                raise Retry(delay=0)
            case "put off" if not ctx.state:
                await ctx.checkpoint("was here")
                raise Snooze(0)
            case "give up":
                raise Discard("never mind")
            case "hang":
                await asyncio.sleep(60)
            case "dispatch":
                await ctx.manager.dispatch(Traced())
            case "dispatch a failure":
                await ctx.manager.dispatch(Traced(do="fail"))
            case "dispatch one that hangs":
                await ctx.manager.dispatch(Traced(do="hang"))
            case _:
                pass
        return "done"


class InThread(Job, queue="traced"):
    def handle(self, ctx: JobContext) -> None:
        seen.append(trace.get_current_span().get_span_context())


CLASS = Traced.__job_class__.name


class Memory(InMemorySpanExporter):
    """Says when it got something."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self.written.set()
        return result


class Lab:
    """A manager, perhaps with a worker, whose spans are looked at."""

    def __init__(self, manager: QueueManager, exporter: Memory, provider: TracerProvider) -> None:
        self.manager = manager
        self.pool: WorkerPool | None = None
        self.tracer = provider.get_tracer("test")
        self._exporter = exporter
        self.written = exporter.written
        self._events: list[ev.Event] = []
        self._news = asyncio.Condition()
        manager.bus.subscribe(ev.Event, self._on_event)

    def _on_event(self, event: ev.Event) -> None:
        self._events.append(event)
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self._news:
            self._news.notify_all()

    async def until(self, kind: type[ev.Event], count: int = 1) -> Any:
        """The ``count``-th event of a kind, when it has happened."""
        async with asyncio.timeout(15), self._news:
            await self._news.wait_for(lambda: len(self.events(kind)) >= count)
        return self.events(kind)[count - 1]

    def events(self, kind: type[ev.Event]) -> list[ev.Event]:
        return [event for event in self._events if isinstance(event, kind)]

    async def span(self, name: str, fits: Callable[[ReadableSpan], bool] = lambda _: True) -> ReadableSpan:
        """The one span of this name that fits, once it is written."""
        (found,) = await self.many(name, 1, fits)
        return found

    async def many(
        self, name: str, count: int, fits: Callable[[ReadableSpan], bool] = lambda _: True
    ) -> list[ReadableSpan]:
        """The spans of this name that fit, in the order in which they were written, once there are ``count``."""
        async with asyncio.timeout(15):
            while True:
                self.written.clear()
                if len(found := [span for span in self.spans(name) if fits(span)]) >= count:
                    break
                await self.written.wait()
        assert len(found) == count, f"{len(found)} spans {name}"
        return found

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if name in ("", span.name)]


@asynccontextmanager
async def lab(
    url: str, *, worker: bool = True, ratio: float = 1.0, sampler: Sampler | None = None,
    jobs: Mapping[str, Any] | None = None, **options: Any,
) -> AsyncGenerator[Lab, None]:  # fmt: skip
    seen.clear()
    exporter = Memory()
    provider = TracerProvider(sampler=sampler) if sampler else TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    wanted = TelemetrySettings(sample_ratio=ratio, metrics=False, **options)
    settings = Settings(jobs=JobsSettings(redis_url=url, **(jobs or {})), telemetry=wanted)
    async with AsyncExitStack() as stack:
        manager = await stack.enter_async_context(QueueManager(settings))
        found = Lab(manager, exporter, provider)
        if worker:
            found.pool = WorkerPool(WorkerConfig(queues=["traced"], max_concurrent_jobs=2, sleep=0.5, lease=1), manager)
        await stack.enter_async_context(telemetry(manager, wanted, pool=found.pool, tracer_provider=provider))
        if found.pool is not None:
            await stack.enter_async_context(found.pool)
        yield found
    provider.shutdown()


def attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(name)


def conversation(span: ReadableSpan) -> Any:
    return attribute(span, "messaging.message.conversation_id")


class At(NamedTuple):
    trace_id: int
    span_id: int


def at(where: SpanContext) -> At:
    return At(where.trace_id, where.span_id)


def linked(span: ReadableSpan) -> dict[str, At]:
    return {str((link.attributes or {})["rf_jobs.link.kind"]): at(link.context) for link in span.links}


def context(span: ReadableSpan) -> At:
    assert span.context is not None
    return at(span.context)


def under(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return (
        child.parent is not None
        and child.parent.span_id == context(parent).span_id
        and context(child).trace_id == context(parent).trace_id
    )
