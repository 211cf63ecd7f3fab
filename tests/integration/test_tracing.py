"""Spans of dispatches and attempts: name, kind, parent, links, attributes."""

from __future__ import annotations

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from rf_jobs.model import events as ev
from rf_jobs.telemetry.spans import SCHEMA_URL
from tests.support.tracing import CLASS, InThread, Traced, at, attribute, context, lab, linked, seen, under


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
