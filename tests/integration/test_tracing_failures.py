"""Failures are always traced, with their true times, under the ids that the handler saw."""

from __future__ import annotations

import asyncio
import json

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from rf_jobs import Job, JobContext
from rf_jobs.model import events as ev
from rf_jobs.telemetry.traceparent import attempt_ids, parse
from tests.support.tracing import CLASS, Traced, attribute, context, conversation, lab, linked, seen, under


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
        await it.manager.store.client.set(commands.keys.of("job", str(job_id)), b"\xff")
        await it.manager.resume("traced")
        process, dead = await it.span("process traced"), await it.span("dead_letter traced")
    assert attribute(process, "error.type") == "rf_jobs.words.errors.SerializationError"
    assert under(dead, process)


@pytest.mark.parametrize("mode", ["auto", "link"])
async def test_a_payload_that_nobody_can_read_has_its_attempts_ids_and_its_dispatch(redis_url: str, mode: str) -> None:
    async with lab(redis_url, ratio=0.0, trace=mode) as it:
        commands = it.manager.store.commands
        await it.manager.pause("traced")
        job_id = await it.manager.dispatch(Traced())
        key = commands.keys.of("job", str(job_id))
        wire = json.loads(await it.manager.store.client.get(key) or b"")
        await it.manager.store.client.set(key, json.dumps(wire | {"args": {"do": 7}}))
        await it.manager.resume("traced")
        process, dead = await it.span("process traced"), await it.span("dead_letter traced")
        letter = await it.manager.inspector.envelope(str(job_id))
        meta = await it.manager.store.run(commands.meta(str(job_id)))
    assert letter is not None
    assert letter.hdr is not None
    creation = parse(letter.hdr.tp)
    assert creation is not None
    ids = attempt_ids(str(job_id), meta["token"].lstrip("!"))
    assert context(process).span_id == int(ids[32:], 16)
    assert context(process).trace_id == (creation.trace_id if mode == "auto" else int(ids[:32], 16))
    assert (process.parent is not None and process.parent.span_id == creation.span_id) is (mode == "auto")
    assert linked(process)["creation"] == linked(dead)["creation"] == (creation.trace_id, creation.span_id)
    assert under(dead, process)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_what_a_handler_logs_has_its_attempts_ids(
    redis_url: str, ratio: float, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "rf_jobs.job"):
        async with lab(redis_url, ratio=ratio) as it:
            await it.manager.dispatch(Traced(do="fail")).max_attempts(1)
            process = await it.span("process traced")
    (said,) = [vars(record) for record in caplog.records if record.name == "rf_jobs.job"]
    own = (f"{context(process).trace_id:032x}", f"{context(process).span_id:016x}")
    assert (said["trace_id"], said["span_id"]) == own


async def test_asking_for_another_try_after_the_last_is_a_failure(redis_url: str) -> None:
    async with lab(redis_url, ratio=0.0) as it:
        job_id = await it.manager.dispatch(Traced(do="ask for another try")).max_attempts(1)
        process, dead = await it.span("process traced"), await it.span("dead_letter traced")
        letter = await it.manager.inspector.envelope(str(job_id))
    assert (context(process).trace_id, context(process).span_id) == (seen[0].trace_id, seen[0].span_id)
    assert letter is not None
    assert letter.hdr is not None
    creation = parse(letter.hdr.tp)
    assert creation is not None
    assert linked(process)["creation"] == linked(dead)["creation"] == (creation.trace_id, creation.span_id)
    assert under(dead, process)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
async def test_all_spans_of_a_job_are_in_one_conversation(redis_url: str, ratio: float) -> None:
    async with lab(redis_url, ratio=ratio) as it:
        root = await it.manager.dispatch(Traced(do="dispatch a failure"))
        died: ev.JobDied = await it.until(ev.JobDied)
        assert await it.manager.retry_failed(died.job_id)
        for name in ("retry traced", "dead_letter traced", "replay traced"):
            assert conversation(await it.span(name, lambda s: attribute(s, "messaging.message.id") == died.job_id)) == (
                str(root)
            )
        talks = {conversation(span) for span in it.spans() if attribute(span, "messaging.message.id")}
    assert talks == {str(root)}
