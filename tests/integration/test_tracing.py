"""Spans of dispatches and attempts: name, kind, parent, links, attributes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from rf_jobs.model import events as ev
from rf_jobs.telemetry.spans import SCHEMA_URL
from rf_jobs.words.errors import PayloadTooLarge, SerializationError
from tests.support.tracing import CLASS, InThread, Traced, at, attribute, context, lab, linked, seen, under


async def test_a_dispatch_and_its_run_are_one_trace(redis_url: str) -> None:
    async with lab(redis_url) as it:
        with it.tracer.start_as_current_span("request"):
            job_id = await it.manager.dispatch(Traced())
        done: ev.JobCompleted = await it.until(ev.JobCompleted)
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
    assert attribute(process, "rf_jobs.job.queue_wait_ms") == round(done.wait * 1000)
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
        promoted: ev.JobsPromoted = await it.until(ev.JobsPromoted)
    assert process.parent is None
    assert linked(process) == {"creation": context(send)}
    assert promote.kind is SpanKind.INTERNAL
    assert promote.parent is None
    assert attribute(promote, "messaging.batch.message_count") == 1
    assert attribute(promote, "rf_jobs.promote.lag_ms.max") == promoted.lag_ms


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
        assert under(await it.span("process Traced"), await it.span("send Traced"))
    async with lab(redis_url, span_name="class", ratio=0.0) as it:
        await it.manager.dispatch(Traced(do="fail"))
        assert under(await it.span("dead_letter Traced"), (await it.many("process Traced", 2))[1])
        await it.span("retry Traced")
        assert {span.name for span in it.spans()} - {"start worker"} == {
            "process Traced", "retry Traced", "dead_letter Traced",
        }  # fmt: skip


async def test_a_duplicate_and_a_dispatch_that_fails(redis_url: str) -> None:
    async with lab(redis_url, worker=False, ratio=1.0) as it:
        job_id = await it.manager.dispatch(Traced())
        await it.manager.dispatch(Traced()).with_id(job_id)
        second = await it.span("send traced", lambda s: attribute(s, "rf_jobs.dispatch.result") == "duplicate")
        first = await it.span("send traced", lambda s: attribute(s, "rf_jobs.dispatch.result") == "enqueued")
        assert linked(second) == {"creation": context(first)}
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


async def test_a_duplicate_of_the_synchronous_side(redis_url: str) -> None:
    """It is told of on another thread's loop, where nothing can be read for its link."""
    async with lab(redis_url, worker=False) as it:
        job_id = await it.manager.dispatch(Traced())
        again = it.manager.dispatch(Traced()).with_id(job_id)
        await asyncio.to_thread(again.sync)
        second = await it.span("send traced", lambda s: attribute(s, "rf_jobs.dispatch.result") == "duplicate")
        await it.manager.dispatch(Traced())
    assert second.links == ()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
@pytest.mark.parametrize(("text", "error"), [("x" * 2_000, PayloadTooLarge), (None, SerializationError)])
async def test_a_dispatch_that_is_refused_before_it_is_sent(
    redis_url: str, ratio: float, text: Any, error: type[Exception]
) -> None:
    async with lab(redis_url, worker=False, ratio=ratio, jobs={"max_payload_bytes": 1_000}) as it:
        with it.tracer.start_as_current_span("request"), pytest.raises(error):
            await it.manager.dispatch(Traced(do=text))
        send = await it.span("send traced")
        assert under(send, await it.span("request"))
        count = len(it.spans())
    assert len(it.spans()) == count, "nothing was left open"
    assert attribute(send, "rf_jobs.dispatch.result") == "rejected"
    assert attribute(send, "error.type") == send.status.description == error.__name__
    assert send.status.status_code is StatusCode.ERROR
    assert attribute(send, "rf_jobs.job.class") == CLASS
    assert send.start_time is not None
    assert send.end_time is not None
    assert send.start_time < send.end_time


async def test_one_that_is_refused_where_nothing_is_sampled_is_written_all_the_same(redis_url: str) -> None:
    async with lab(redis_url, worker=False, ratio=0.0, jobs={"max_payload_bytes": 1_000}) as it:
        with pytest.raises(PayloadTooLarge):
            await it.manager.dispatch(Traced(do="x" * 2_000))
        send = await it.span("send traced")
        with pytest.raises(PayloadTooLarge):
            await it.manager.dispatch_many([Traced(), Traced(do="x" * 2_000)])
        many = await it.span("send traced", lambda s: attribute(s, "messaging.batch.message_count") == 2)
    assert send.parent is None
    assert many.status.status_code is StatusCode.ERROR
