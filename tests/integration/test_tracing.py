"""Every transition's span: name, kind, parent, links, attributes. Real workers on a real server; spans into memory."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from rf_jobs import Discard, Fail, Job, JobContext, QueueManager, Retry, Settings, Snooze, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.telemetry import telemetry
from rf_jobs.telemetry.spans import SCHEMA_URL
from rf_jobs.telemetry.traceparent import parse
from rf_jobs.words.config_settings import JobsSettings, TelemetrySettings

seen: list[SpanContext] = []
"""The span that was current in each handler."""


class Traced(Job, queue="traced", backoff=0, max_attempts=2):
    do: str = ""

    async def handle(self, ctx: JobContext) -> str:
        seen.append(trace.get_current_span().get_span_context())
        match self.do:
            case "fail":
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
        async with asyncio.timeout(15):
            while True:
                self.written.clear()
                if found := [span for span in self.spans(name) if fits(span)]:
                    break
                await self.written.wait()
        assert len(found) == 1, f"{len(found)} spans {name}"
        return found[0]

    def spans(self, name: str = "") -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if name in ("", span.name)]


@asynccontextmanager
async def lab(
    url: str, *, worker: bool = True, ratio: float = 1.0, sampler: Sampler | None = None, **options: Any
) -> AsyncIterator[Lab]:
    seen.clear()
    exporter = Memory()
    provider = TracerProvider(sampler=sampler) if sampler else TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    wanted = TelemetrySettings(sample_ratio=ratio, metrics=False, **options)
    settings = Settings(jobs=JobsSettings(redis_url=url), telemetry=wanted)
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


# --- dispatch and process ----------------------------------------------------------------------------------------


async def test_a_dispatch_and_its_run_are_one_trace(redis_url: str) -> None:
    async with lab(redis_url) as it:
        with it.tracer.start_as_current_span("request"):
            job_id = await it.manager.dispatch(Traced())
        await it.until(ev.JobCompleted)
        request, send, process = await it.span("request"), await it.span("send traced"), await it.span("process traced")
        record = await it.manager.job(job_id)
    assert under(send, request)
    assert under(process, send)
    assert (send.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert linked(process) == {"creation": context(send)}
    assert [at(each) for each in seen] == [context(process)]
    assert record.trace_id == f"{context(send).trace_id:032x}"
    assert dict(send.attributes or {}) == {
        "messaging.system": "rf_jobs",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "traced",
        "messaging.message.id": str(job_id),
        "messaging.message.conversation_id": str(job_id),
        "server.address": attribute(send, "server.address"),
        "rf_jobs.job.class": CLASS,
        "rf_jobs.job.priority": 1,
        "rf_jobs.dispatch.result": "enqueued",
    } | ({} if attribute(send, "server.port") is None else {"server.port": attribute(send, "server.port")})
    assert attribute(process, "rf_jobs.job.outcome") == "success"
    assert attribute(process, "rf_jobs.job.attempt") == 1
    assert attribute(process, "rf_jobs.job.max_attempts") == 2
    assert attribute(process, "rf_jobs.worker.id").startswith("w")
    assert attribute(process, "rf_jobs.job.queue_wait_ms") >= 0
    assert [event.name for event in process.events] == ["created", "enqueued", "fetched"]
    assert process.status.status_code is StatusCode.UNSET
    scope = process.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("rf_jobs", SCHEMA_URL)


@pytest.mark.parametrize(("mode", "is_child", "links"), [("child", True, 1), ("link", False, 1), ("new", False, 0)])
async def test_modes(redis_url: str, mode: str, is_child: bool, links: int) -> None:
    async with lab(redis_url, trace=mode) as it:
        await it.manager.dispatch(Traced()).delay(0.01)
        await it.until(ev.JobCompleted)
        send, process = await it.span("send traced"), await it.span("process traced")
    assert under(process, send) is is_child
    assert (process.parent is None) is not is_child
    assert len(process.links) == links
    assert attribute(send, "rf_jobs.dispatch.result") == "scheduled"
    assert attribute(send, "rf_jobs.job.delay_ms") == 10


async def test_a_delayed_job_starts_a_trace_of_its_own(redis_url: str) -> None:
    async with lab(redis_url) as it:
        await it.manager.dispatch(Traced()).delay(0.01)
        await it.until(ev.JobCompleted)
        send, process = await it.span("send traced"), await it.span("process traced")
        promote = await it.span("promote traced")
    assert process.parent is None
    assert linked(process) == {"creation": context(send)}
    assert promote.kind is SpanKind.INTERNAL
    assert promote.parent is None
    assert attribute(promote, "messaging.batch.message_count") == 1
    assert attribute(promote, "rf_jobs.promote.lag_ms.max") >= 0


async def test_a_batch_is_sent_in_one_span(redis_url: str) -> None:
    async with lab(redis_url) as it:
        with it.tracer.start_as_current_span("request"):
            await it.manager.dispatch_many([Traced() for _ in range(3)])
        await it.until(ev.JobCompleted, 3)
        request, send = await it.span("request"), await it.span("send traced")
        processes = it.spans("process traced")
    assert under(send, request)
    assert send.kind is SpanKind.PRODUCER
    assert attribute(send, "messaging.batch.message_count") == 3
    assert attribute(send, "messaging.destination.name") == "traced"
    assert attribute(send, "messaging.message.id") is None
    assert len(processes) == 3
    assert all(p.parent is None and linked(p) == {"creation": context(send)} for p in processes)
    assert len({context(p).trace_id for p in processes}) == 3


async def test_a_batch_over_several_queues(redis_url: str) -> None:
    async with lab(redis_url, worker=False) as it:
        await it.manager.dispatch_many([Traced(), it.manager.dispatch(Traced()).on_queue("other")])
        send = await it.span("send *")
    assert attribute(send, "messaging.destination.name") == "*"
    assert attribute(send, "rf_jobs.job.class") == CLASS


async def test_jobs_of_a_handler_are_under_its_span(redis_url: str) -> None:
    async with lab(redis_url) as it:
        job_id = await it.manager.dispatch(Traced(do="dispatch"))
        await it.until(ev.JobCompleted, 2)
        inner = await it.span("send traced", lambda s: s.parent is not None)
        outer = await it.span("process traced", lambda s: attribute(s, "messaging.message.id") == str(job_id))
        run = await it.span("process traced", lambda s: attribute(s, "messaging.message.id") != str(job_id))
    assert under(inner, outer)
    assert under(run, inner)
    assert attribute(run, "messaging.message.conversation_id") == str(job_id)


async def test_threads_have_the_span_too(redis_url: str) -> None:
    async with lab(redis_url) as it:
        await it.manager.dispatch(InThread())
        await it.until(ev.JobCompleted)
        process = await it.span("process traced")
    assert [at(each) for each in seen] == [context(process)]


async def test_named_by_class(redis_url: str) -> None:
    async with lab(redis_url, span_name="class") as it:
        await it.manager.dispatch(Traced())
        await it.until(ev.JobCompleted)
        assert under(await it.span(f"process {CLASS}"), await it.span(f"send {CLASS}"))


async def test_a_duplicate_and_a_dispatch_that_fails(redis_url: str) -> None:
    async with lab(redis_url, worker=False, ratio=1.0) as it:
        job_id = await it.manager.dispatch(Traced())
        await it.manager.dispatch(Traced()).with_id(job_id)
        await it.span("send traced", lambda s: attribute(s, "rf_jobs.dispatch.result") == "duplicate")
    async with lab(redis_url, worker=False, ratio=0.0) as it:
        await it.manager.dispatch(Traced())
        it.manager.store.retry_for = 0.0
        await it.manager.store.aclose()
        with pytest.raises(Exception, match="closed"):
            await it.manager.dispatch(Traced())
        send = await it.span("send traced")
        with pytest.raises(Exception, match="closed"):
            await it.manager.dispatch_many([Traced(), Traced()])
        many = await it.span("send traced", lambda s: attribute(s, "messaging.batch.message_count") == 2)
    assert attribute(send, "rf_jobs.dispatch.result") == "rejected"
    assert send.status.status_code is many.status.status_code is StatusCode.ERROR
    assert attribute(send, "error.type") == "BackendError"


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_retry(redis_url: str, ratio: float) -> None:
    async with lab(redis_url, ratio=ratio) as it:
        job_id = await it.manager.dispatch(Traced(do="fail once"))
        retried: ev.JobRetried = await it.until(ev.JobRetried)
        await it.until(ev.JobCompleted)
        first = await it.span("process traced", lambda s: attribute(s, "rf_jobs.job.attempt") == 1)
        retry = await it.span("retry traced")
        record = await it.manager.job(job_id)
        second = it.spans("process traced")[1:]
    assert seen[0].span_id == context(first).span_id
    assert seen[0].trace_id == context(first).trace_id, "written late, under the ids that the handler saw"
    assert first.status.status_code is StatusCode.ERROR
    assert first.status.description == attribute(first, "error.type") == "ValueError"
    assert attribute(first, "rf_jobs.job.outcome") == "retry"
    assert under(retry, first)
    assert retry.kind is SpanKind.CLIENT
    assert attribute(retry, "rf_jobs.job.next_attempt") == 2
    assert attribute(retry, "error.type") == "ValueError"
    assert retried.trace.endswith(("1", "3"))
    own = parse(retried.trace)
    assert own is not None
    assert own.span_id == context(first).span_id
    assert record.errors[0].type == "ValueError"
    if ratio:
        assert second[0].parent is None, "a second attempt is a trace of its own"
        assert linked(second[0])["previous_attempt"].span_id == context(first).span_id
        assert set(linked(second[0])) == {"creation", "previous_attempt"}
    else:
        assert second == []
        assert not it.spans("send traced")


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_a_dead_letter_and_its_replay(redis_url: str, ratio: float) -> None:
    async with lab(redis_url, ratio=ratio) as it:
        job_id = await it.manager.dispatch(Traced(do="fail"))
        await it.until(ev.JobDied)
        dead = await it.span("dead_letter traced")
        attempts = it.spans("process traced")
        with it.tracer.start_as_current_span("operator"):
            assert await it.manager.retry_failed(job_id)
        replay, operator = await it.span("replay traced"), await it.span("operator")
        record = await it.manager.job(job_id)
    assert [attribute(a, "rf_jobs.job.outcome") for a in attempts] == ["retry", "dead"]
    assert under(dead, attempts[1])
    assert dead.kind is SpanKind.CLIENT
    assert dead.status.status_code is StatusCode.ERROR
    assert linked(dead)["creation"].trace_id == int(record.trace_id, 16)
    assert linked(dead)["previous_attempt"].span_id == context(attempts[0]).span_id
    assert under(replay, operator)
    assert replay.kind is SpanKind.PRODUCER
    assert linked(replay)["creation"].trace_id == int(record.trace_id, 16)
    assert attribute(replay, "rf_jobs.job.class") == CLASS
    assert attribute(replay, "messaging.message.id") == str(job_id)


@pytest.mark.parametrize(("redact", "message"), [(False, "card 4111"), (True, None)])
async def test_the_exceptions_record(redis_url: str, redact: bool, message: str | None) -> None:
    async with lab(redis_url, ratio=0.0, redact_exceptions=redact) as it:
        await it.manager.dispatch(Traced(do="fail")).max_attempts(1)
        process = await it.span("process traced")
    (event,) = [event for event in process.events if event.name == "exception"]
    facts = dict(event.attributes or {})
    assert facts["exception.type"] == "ValueError"
    assert facts.get("exception.message") == message
    assert ("Traceback" in str(facts.get("exception.stacktrace"))) is not redact
    assert "4111" not in str(process.attributes)
    assert redact is ("4111" not in process.to_json())


async def test_a_timeout_is_written_with_its_true_times(redis_url: str) -> None:
    class Slow(Job, queue="traced", timeout=0.2, max_attempts=1):
        async def handle(self, ctx: JobContext) -> None:
            seen.append(trace.get_current_span().get_span_context())
            await asyncio.sleep(60)

    async with lab(redis_url, ratio=0.0) as it:
        await it.manager.dispatch(Slow())
        process = await it.span("process traced")
    assert attribute(process, "error.type") == "rf_jobs.words.errors.JobTimeout"
    assert attribute(process, "rf_jobs.sampling.reason") == "failure"
    assert process.start_time is not None
    assert process.end_time is not None
    assert 0.19 < (process.end_time - process.start_time) / 1e9 < 5
    assert context(process).span_id == seen[0].span_id


@pytest.mark.parametrize(
    ("do", "outcome", "event"),
    [
        ("ask for another try", "retry", ev.JobRetried),
        ("put off", "released", ev.JobSnoozed),
        ("give up", "cancelled", ev.JobDiscarded),
    ],
)
async def test_what_the_handler_wanted_is_no_error(
    redis_url: str, do: str, outcome: str, event: type[ev.Event]
) -> None:
    async with lab(redis_url) as it:
        await it.manager.dispatch(Traced(do=do))
        await it.until(event)
        if event is not ev.JobDiscarded:
            await it.until(ev.JobCompleted)
        first = await it.span("process traced", lambda s: attribute(s, "rf_jobs.job.outcome") == outcome)
    assert first.status.status_code is StatusCode.UNSET
    async with lab(redis_url, ratio=0.0) as it:
        await it.manager.dispatch(Traced(do=do))
        await it.until(event)
        assert not it.spans("process traced")


async def test_a_damaged_job_is_seen(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        commands = it.manager.store.commands
        await it.manager.pause("traced")
        job_id = await it.manager.dispatch(Traced())
        await it.manager.store._client.set(commands.keys.of("job", str(job_id)), b"\xff")
        await it.manager.resume("traced")
        process, dead = await it.span("process traced"), await it.span("dead_letter traced")
    assert attribute(process, "error.type") == "rf_jobs.words.errors.SerializationError"
    assert under(dead, process)


# --- operators and workers ---------------------------------------------------------------------------------------


async def test_cancelling_what_waits(redis_url: str) -> None:
    async with lab(redis_url, worker=False) as it:
        job_id = await it.manager.dispatch(Traced())
        with it.tracer.start_as_current_span("operator"):
            await it.manager.cancel(job_id)
        cancel, send, operator = await it.span("cancel traced"), await it.span("send traced"), await it.span("operator")
    assert under(cancel, operator)
    assert cancel.kind is SpanKind.CLIENT
    assert linked(cancel) == {"creation": context(send)}
    assert attribute(cancel, "rf_jobs.cancel.stage") == "queued"


async def test_cancelling_what_runs(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        job_id = await it.manager.dispatch(Traced(do="hang"))
        await it.until(ev.JobStarted)
        await it.manager.cancel(job_id)
        await it.until(ev.JobDiscarded)
        cancel, process = await it.span("cancel traced"), await it.span("process traced")
    assert attribute(cancel, "rf_jobs.cancel.stage") == "running"
    assert attribute(process, "rf_jobs.job.outcome") == "cancelled"
    assert process.status.status_code is StatusCode.UNSET


async def test_clearing_is_one_span(redis_url: str) -> None:
    async with lab(redis_url, worker=False) as it:
        await it.manager.dispatch_many([Traced() for _ in range(5)])
        await it.manager.clear("traced")
        cancel = await it.span("cancel traced")
    assert attribute(cancel, "messaging.batch.message_count") == 5


async def test_a_lost_job_links_to_the_attempt_that_was_lost(redis_url: str) -> None:
    """The lease of a silent consumer runs out; whoever takes the job back can still name the attempt's span."""
    async with lab(redis_url) as it:
        assert it.pool is not None
        job_id = await it.manager.dispatch(Traced(do="hang"))
        started: ev.JobStarted = await it.until(ev.JobStarted)
        (attempt,) = seen
        # As if this worker had frozen: its lease is over, and another one looks after it.
        keys = it.manager.store.commands.keys
        assert it.pool._beats is not None
        it.pool._beats.stop()
        await it.manager.store._client.zadd(keys.of("running", "traced"), {str(job_id): 1})
        await it.until(ev.JobReclaimed)
        reclaim = await it.span("reclaim traced")
        it.pool.stop_jobs([str(job_id)], [])
        await it.until(ev.AttemptLost)
        lost = await it.span("process traced", lambda s: attribute(s, "rf_jobs.job.outcome") == "lost")
    assert reclaim.kind is SpanKind.INTERNAL
    assert reclaim.parent is None
    assert reclaim.status.status_code is StatusCode.ERROR
    assert attribute(reclaim, "rf_jobs.lease.owner") == started.worker
    links = linked(reclaim)
    assert links["lost_attempt"].span_id == attempt.span_id == context(lost).span_id
    assert links["lost_attempt"].trace_id == attempt.trace_id == links["creation"].trace_id
    assert lost.status.status_code is StatusCode.ERROR


async def test_fetches_that_brought_something(redis_url: str) -> None:
    async with lab(redis_url) as it:
        await it.manager.dispatch(Traced())
        await it.until(ev.JobCompleted)
        receive = await it.span("receive traced")
    assert receive.kind is SpanKind.CLIENT
    assert receive.parent is None
    assert attribute(receive, "messaging.batch.message_count") == 1


async def test_the_workers_own_life(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        await it.manager.dispatch(Traced(do="hang"))
        await it.until(ev.JobStarted)
        assert it.pool is not None
        await it.pool.shutdown(0)
        start, stop = await it.span("start worker"), await it.span("shutdown worker")
        released = await it.span("process traced")
    assert start.parent is stop.parent is None
    assert attribute(start, "rf_jobs.worker.slots") == 2
    assert (attribute(stop, "rf_jobs.worker.drained"), attribute(stop, "rf_jobs.worker.released")) == (0, 1)
    assert attribute(released, "rf_jobs.job.outcome") == "released"


# --- what is not recorded ----------------------------------------------------------------------------------------


async def test_unsampled_successes_leave_nothing_but_their_context(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        await it.manager.dispatch(Traced())
        done: ev.JobCompleted = await it.until(ev.JobCompleted)
        assert {span.name for span in it.spans()} == {"start worker"}
    assert done.trace == ""
    (attempt,) = seen
    assert attempt.is_valid
    assert not attempt.trace_flags.sampled


async def test_a_sampled_request_is_followed_whatever_the_ratio(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        with it.tracer.start_as_current_span("request"):
            await it.manager.dispatch(Traced())
        await it.until(ev.JobCompleted)
        assert under(await it.span("process traced"), await it.span("send traced"))


async def test_so_many_spans_a_second_and_failures_all_the_same(redis_url: str) -> None:
    async with lab(redis_url, max_spans_per_second=0) as it:
        await it.manager.dispatch(Traced())
        await it.manager.dispatch(Traced(do="fail for good"))
        await it.until(ev.JobCompleted)
        await it.span("dead_letter traced")
        names = {span.name for span in it.spans()}
    assert names == {"start worker", "process traced", "dead_letter traced"}
    assert len(it.spans("process traced")) == 1


async def test_who_turned_sampling_off_gets_nothing(redis_url: str) -> None:
    async with lab(redis_url, sampler=ALWAYS_OFF) as it:
        await it.manager.dispatch(Traced(do="fail for good"))
        await it.until(ev.JobDied)
    assert it.spans() == []


async def test_without_a_provider_nothing_is_put_in_the_way(redis_url: str) -> None:
    settings = Settings(jobs=JobsSettings(redis_url=redis_url))
    async with QueueManager(settings) as manager, telemetry(manager, settings.telemetry):
        assert not manager.middleware.wraps_runs
        job_id = await manager.dispatch(Traced())
        letter = await manager.inspector.envelope(str(job_id))
    assert letter is not None
    assert letter.hdr is None


async def test_our_own_commands_are_kept_from_instrumentation(redis_url: str) -> None:
    from opentelemetry.context import get_value

    for trace_redis in (False, True):
        async with lab(redis_url, worker=False, trace_redis=trace_redis) as it:
            told: list[object] = []
            real = it.manager.store._client.execute_command

            async def spy(*args: Any, told: list[object] = told, real: Any = real, **options: Any) -> Any:
                told.append(get_value("suppress_instrumentation"))
                return await real(*args, **options)

            it.manager.store._client.execute_command = spy  # type: ignore[method-assign]
            await it.manager.dispatch(Traced())
            assert told
            assert set(told) == {None if trace_redis else True}
            assert get_value("suppress_instrumentation") is None


async def test_the_loops_are_in_nobodys_span(redis_url: str) -> None:
    """A worker started inside a span must not have its whole life in it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    contexts: list[contextvars.Context] = []
    settings = Settings(jobs=JobsSettings(redis_url=redis_url), telemetry=TelemetrySettings(sample_ratio=0.0))
    with provider.get_tracer("test").start_as_current_span("startup") as startup:
        async with QueueManager(settings) as manager:
            pool = WorkerPool(WorkerConfig(queues=["traced"]), manager)
            async with telemetry(manager, settings.telemetry, pool=pool, tracer_provider=provider), pool:
                done = asyncio.Event()
                manager.bus.subscribe(ev.JobCompleted, lambda _: done.set())
                manager.bus.subscribe(ev.JobsFetched, lambda _: contexts.append(contextvars.copy_context()))
                await manager.dispatch(Traced())
                await asyncio.wait_for(done.wait(), 10)
        trace_id = startup.get_span_context().trace_id
    inside = [span.name for span in exporter.get_finished_spans() if context(span).trace_id == trace_id]
    assert sorted(inside) == ["process traced", "send traced", "startup"], "the dispatch was made in the span"
    assert contexts
    for each in contexts:
        assert not each.run(trace.get_current_span).get_span_context().is_valid
