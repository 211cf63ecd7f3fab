from __future__ import annotations

import json
import logging
import subprocess
import sys

import msgspec
import pytest
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from rf_jobs.model import events as ev
from rf_jobs.model.context import JobContext
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry.logs import JsonFormatter, LifecycleLog, TextFormatter

JOB = ("0190-id", "emails", "shop:SendEmail")
TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
RETRIED = ev.JobRetried(
    *JOB, 2, "w1", 0.3, 0.02, 0.5, TRACE, "exception", "ValueError", "card 4111", "Traceback ...", 60.0
)


def told(
    caplog: pytest.LogCaptureFixture, event: ev.Event, *, redact: bool = False, level: int = logging.DEBUG
) -> list[logging.LogRecord]:
    bus = EventBus()
    caplog.clear()
    with caplog.at_level(level, "rf_jobs.lifecycle"):
        LifecycleLog(bus, redact=redact)
        bus.emit(event)
    return caplog.records


def test_a_transition_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = told(caplog, RETRIED)
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "SendEmail failed, will be tried again: ValueError: card 4111"
    line = json.loads(JsonFormatter().format(record))
    assert line["job"] == {
        "job_id": "0190-id",
        "job_class": "shop:SendEmail",
        "queue": "emails",
        "attempt": 2,
        "worker": "w1",
    }
    assert line["fields"] == {"delay": 60.0, "wait": 0.3, "duration": 0.02, "reason": "exception"}
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16)
    text = TextFormatter().format(record)
    assert text.endswith(f"job_id=0190-id attempt=2 trace_id={'a' * 32}")


def test_what_an_error_says_cannot_pass_for_another_line_or_reach_the_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    (record,) = told(caplog, msgspec.structs.replace(RETRIED, message="x\n12:00:00 INFO rf_jobs  all is well\x1b[2J"))
    assert TextFormatter().format(record).isprintable()
    record.exc_info = (ValueError, ValueError("\x1b[2J"), None)
    assert "\x1b" not in TextFormatter().format(record)


def test_redacted_it_has_the_type_alone(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = told(caplog, RETRIED, redact=True)
    assert "4111" not in JsonFormatter().format(record)
    assert record.getMessage().endswith("again: ValueError")


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (ev.JobCompleted(*JOB, 1, "w", 0.0, 0.0, 0.0), logging.DEBUG),
        (ev.JobDied(*JOB, 1, "w", 0.0, 0.0, 0.0), logging.ERROR),
        (ev.JobReclaimed(*JOB, 1, "w", "ready"), logging.WARNING),
        (ev.JobReplayed(*JOB), logging.INFO),
        (ev.DispatchRejected("emails", "SendEmail", "BackendError"), logging.WARNING),
    ],
)
def test_levels(caplog: pytest.LogCaptureFixture, event: ev.Event, level: int) -> None:
    assert [record.levelno for record in told(caplog, event)] == [level]


def test_what_nobody_reads_costs_nothing() -> None:
    bus = EventBus()
    logger = logging.getLogger("rf_jobs.lifecycle")
    old = logger.level
    logger.setLevel(logging.WARNING)
    try:
        log = LifecycleLog(bus, redact=False)
    finally:
        logger.setLevel(old)
    assert not bus.wants(ev.JobCompleted)
    assert bus.wants(ev.JobDied)
    log.close()
    assert not bus.wants(ev.JobDied)


def test_a_handlers_line_has_its_span(caplog: pytest.LogCaptureFixture) -> None:
    token = attach(set_span_in_context(NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False))))
    try:
        with caplog.at_level(logging.INFO):
            JobContext.fake().log("half way", done=5)
        line = json.loads(JsonFormatter().format(caplog.records[-1]))
    finally:
        detach(token)
    assert line["message"] == "half way"
    assert line["fields"] == {"done": 5}
    assert line["trace_id"] == f"{0xABC:032x}"
    assert line["job"]["attempt"] == 1


def test_a_handlers_record_has_the_ids_of_its_attempt_whoever_formats_it(caplog: pytest.LogCaptureFixture) -> None:
    ctx = JobContext.fake()
    with caplog.at_level(logging.INFO):
        ctx.log("not traced")
        ctx.trace = TRACE
        ctx.log("traced")
    untraced, traced = caplog.records
    assert not hasattr(untraced, "trace_id")
    assert not hasattr(untraced, "span_id")
    assert "trace_id" not in json.loads(JsonFormatter().format(untraced))
    assert (vars(traced)["trace_id"], vars(traced)["span_id"]) == ("a" * 32, "b" * 16)
    line = json.loads(JsonFormatter().format(traced))
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "b" * 16), "also on a thread that has no current span"


def test_an_exception_stands_in_the_json_line() -> None:
    error = ValueError("no")
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "it %s", ("broke",), (ValueError, error, None))
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "it broke"
    assert line["exception"].endswith("ValueError: no")


def test_telemetry_loads_nothing_heavy() -> None:
    """A worker that records no spans and that nobody scrapes must not pay for either."""
    code = (
        "import sys, rf_jobs.worker.supervisor, rf_jobs.telemetry\n"
        "print([m for m in ('prometheus_client', 'opentelemetry.sdk', 'opentelemetry.exporter', 'aiohttp', 'requests')"
        " if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
