"""Spans of what operators and workers do, and what is not recorded."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from rf_jobs import QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.telemetry import telemetry
from rf_jobs.words.config_settings import JobsSettings, TelemetrySettings
from tests.support.tracing import Traced, attribute, context, conversation, lab, linked, seen, under


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


async def test_a_cancellation_is_in_its_jobs_conversation(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        root = await it.manager.dispatch(Traced(do="dispatch one that hangs"))
        inner: ev.JobStarted = await it.until(ev.JobStarted, 2)
        await it.manager.cancel(inner.job_id)
        cancel, process = await it.span("cancel traced"), await it.span("process traced")
    assert conversation(cancel) == conversation(process) == str(root)


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
        root = await it.manager.dispatch(Traced(do="dispatch one that hangs"))
        started: ev.JobStarted = await it.until(ev.JobStarted, 2)
        job_id, attempt = started.job_id, seen[1]
        # As if this worker had frozen: its lease is over, and another one looks after it.
        keys = it.manager.store.commands.keys
        assert it.pool._beats is not None
        it.pool._beats.stop()
        await it.manager.store.client.zadd(keys.of("running", "traced"), {str(job_id): 1})
        await it.until(ev.JobReclaimed)
        reclaim = await it.span("reclaim traced")
        it.pool.stop_jobs([str(job_id)], [])
        await it.until(ev.AttemptLost)
        lost = await it.span("process traced", lambda s: attribute(s, "rf_jobs.job.outcome") == "lost")
    assert reclaim.kind is SpanKind.INTERNAL
    assert reclaim.parent is None
    assert reclaim.status.status_code is StatusCode.ERROR
    assert attribute(reclaim, "rf_jobs.lease.owner") == started.worker
    assert attribute(reclaim, "rf_jobs.job.attempt") == 1
    assert 0 <= attribute(reclaim, "rf_jobs.reclaim.silent_for_ms") < 60_000
    assert conversation(reclaim) == conversation(lost) == str(root)
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
            real = it.manager.store.client.execute_command

            async def spy(*args: Any, told: list[object] = told, real: Any = real, **options: Any) -> Any:
                told.append(get_value("suppress_instrumentation"))
                return await real(*args, **options)

            it.manager.store.client.execute_command = spy  # type: ignore[method-assign]
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
