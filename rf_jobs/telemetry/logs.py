"""Logs: lines on standard error for those who run something, as text for people or as JSON for collectors; and one line
for each transition of a job. A payload is never in them, nor a result; with ``redact_exceptions`` no message either.

Fields of a job stand in ``record.rf_job``, what was said beside the message in ``record.rf_fields``. A line has the ids of
the attempt that it is about, of the span that is current, or of the attempt that wrote it with ``ctx.log``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from rf_jobs.model import events as ev
from rf_jobs.model.events import AttemptEvent, EventBus, FailedAttempt, JobEvent
from rf_jobs.words.printing import clean

lifecycle = logging.getLogger("rf_jobs.lifecycle")

_LEVELS: dict[type[ev.Event], tuple[int, str]] = {
    ev.JobDispatched: (logging.DEBUG, "dispatched"),
    ev.JobOutboxed: (logging.DEBUG, "was written to an outbox"),
    ev.JobDeduplicated: (logging.DEBUG, "was there already"),
    ev.DispatchRejected: (logging.WARNING, "was not dispatched"),
    ev.JobStarted: (logging.DEBUG, "started"),
    ev.JobCompleted: (logging.DEBUG, "completed"),
    ev.JobRetried: (logging.WARNING, "failed, will be tried again"),
    ev.JobDied: (logging.ERROR, "is dead"),
    ev.JobDiscarded: (logging.INFO, "was discarded"),
    ev.JobSnoozed: (logging.INFO, "was put off"),
    ev.JobReleased: (logging.INFO, "was handed back"),
    ev.JobExpired: (logging.WARNING, "expired before it started"),
    ev.JobParked: (logging.WARNING, "waits for a worker that knows its class"),
    ev.JobCrashed: (logging.ERROR, "killed the process that ran it"),
    ev.AttemptLost: (logging.WARNING, "ended after its lease was lost"),
    ev.JobReclaimed: (logging.WARNING, "was taken back from a silent worker"),
    ev.JobUnparked: (logging.INFO, "is ready again: its class is known now"),
    ev.JobReplayed: (logging.INFO, "was replayed"),
    ev.JobBlocked: (logging.DEBUG, "waits"),
    ev.JobUnblocked: (logging.DEBUG, "waits no more"),
    ev.JobRestored: (logging.INFO, "waits again for a job that was replayed"),
    ev.JobReprioritized: (logging.INFO, "has another priority"),
    ev.JobRescheduled: (logging.INFO, "waits for another time"),
    ev.JobForgotten: (logging.INFO, "was forgotten"),
    ev.JobCancelled: (logging.INFO, "was cancelled"),
    ev.CancelRequested: (logging.INFO, "was asked to stop"),
    ev.JobCancelAcknowledged: (logging.INFO, "was told to stop"),
    ev.JobOverran: (logging.WARNING, "ignores its timeout, or that it was cancelled"),
    ev.LeaseLost: (logging.WARNING, "lost its lease"),
}
_SCHEDULES: dict[type[ev.ScheduleEvent], tuple[int, str]] = {
    ev.ScheduleTicked: (logging.DEBUG, "ticked"),
    ev.ScheduleOverlapped: (logging.INFO, "did not dispatch: its last job is there still"),
    ev.ScheduleMissed: (logging.WARNING, "has missed ticks"),
    ev.ScheduleFailed: (logging.ERROR, "could not dispatch a tick"),
    ev.ScheduleOrphaned: (
        logging.WARNING,
        "is in no scheduler's code any more and does not run; see rf-jobs schedules",
    ),
    ev.ScheduleAdded: (logging.INFO, "was added"),
    ev.ScheduleChanged: (logging.INFO, "was changed"),
    ev.SchedulePaused: (logging.INFO, "was paused"),
    ev.ScheduleResumed: (logging.INFO, "was resumed"),
    ev.ScheduleTriggered: (logging.INFO, "was triggered"),
    ev.ScheduleRemoved: (logging.INFO, "was removed"),
}
_OTHERS: dict[type[ev.Event], tuple[int, str, str]] = {
    ev.BatchFinished: (logging.INFO, "is over", "batch"),
    ev.HoldSet: (logging.WARNING, "is paused: its jobs do not start", "scope"),
    ev.HoldEnded: (logging.INFO, "is resumed", "scope"),
}
"""Level, what is said, and the member that says of what."""
_SCHEDULE_FIELDS = ("job_id", "lag", "count", "reason", "source")
_FIELDS = (
    "delay",
    "delay_ms",
    "priority",
    "parent",
    "state",
    "wait",
    "duration",
    "reason",
    "crashes",
    "stage",
    "seconds",
)
"""Of an event's members, those that are said beside the message."""


class LifecycleLog:
    """Subscribes when it is made, to those events alone whose lines would be written; ``close`` ends that."""

    def __init__(self, bus: EventBus, *, redact: bool) -> None:
        self._redact = redact
        self._ends = [
            bus.subscribe(kind, self._teller(level, what))
            for kind, (level, what) in _LEVELS.items()
            if lifecycle.isEnabledFor(level)
        ]
        self._ends += [
            bus.subscribe(kind, partial(_tell_schedule, level, what))
            for kind, (level, what) in _SCHEDULES.items()
            if lifecycle.isEnabledFor(level)
        ]
        self._ends += [
            bus.subscribe(kind, partial(_tell_other, level, what, name))
            for kind, (level, what, name) in _OTHERS.items()
            if lifecycle.isEnabledFor(level)
        ]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _teller(self, level: int, what: str) -> Callable[[Any], None]:
        def tell(event: JobEvent) -> None:
            name = event.job_class.rpartition(":")[2] or "job"
            error = self._error(event) if isinstance(event, FailedAttempt) else ""
            lifecycle.log(
                level, "%s %s%s", name, what, error,
                extra={"rf_job": _job(event), "rf_fields": _told(event), "rf_trace": _trace(event)},
            )  # fmt: skip

        return tell

    def _error(self, event: FailedAttempt) -> str:
        if not event.error_type:
            return ""
        return f": {event.error_type}" + (f": {event.message}" if event.message and not self._redact else "")


def _tell_schedule(level: int, what: str, event: ev.ScheduleEvent) -> None:
    told = {name: getattr(event, name) for name in _SCHEDULE_FIELDS if hasattr(event, name)}
    lifecycle.log(level, "schedule %s %s", event.schedule, what, extra={"rf_fields": told})


def _tell_other(level: int, what: str, name: str, event: ev.Event) -> None:
    told = {field: getattr(event, field) for field in ("state", "failed", "seconds") if hasattr(event, field)}
    lifecycle.log(level, "%s %s", getattr(event, name), what, extra={"rf_fields": told})


def _job(event: JobEvent) -> dict[str, Any]:
    found: dict[str, Any] = {"job_id": event.job_id, "job_class": event.job_class, "queue": event.queue}
    if isinstance(event, AttemptEvent):
        found["attempt"] = event.attempt
    worker = getattr(event, "worker", "")
    return {**found, "worker": worker} if worker else found


def _told(event: JobEvent) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in _FIELDS if getattr(event, name, "") not in ("", 0)}
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}


def _trace(event: JobEvent) -> str:
    return getattr(event, "trace", "") or getattr(event, "traceparent", "")


def trace_ids(record: logging.LogRecord) -> tuple[str, str]:
    """Trace and span id that belong to a line, '' where none do. OpenTelemetry is not loaded for it."""
    told = getattr(record, "rf_trace", "")
    if told:
        return told[3:35], told[36:52]
    api: Any = sys.modules.get("opentelemetry.trace")
    current = None if api is None else api.get_current_span().get_span_context()
    if current is not None and current.is_valid:
        return f"{current.trace_id:032x}", f"{current.span_id:016x}"
    return getattr(record, "trace_id", ""), getattr(record, "span_id", "")


class TextFormatter(logging.Formatter):
    """``12:30:01 INFO rf_jobs.worker  message  key=value``. Nothing that somebody put into a message can pass for another line."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s  %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        line = super().formatMessage(record)
        job = getattr(record, "rf_job", None) or {}
        fields = {
            **(getattr(record, "rf_fields", None) or {}),
            **{k: job[k] for k in ("job_id", "attempt") if k in job},
        }
        trace_id = trace_ids(record)[0]
        if trace_id:
            fields["trace_id"] = trace_id
        return clean(line + ("  " + " ".join(f"{key}={value}" for key, value in fields.items()) if fields else ""))

    def formatException(self, ei: Any) -> str:  # noqa: N802 (logging's name)
        return clean(super().formatException(ei), lines=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        trace_id, span_id = trace_ids(record)
        if trace_id:
            line["trace_id"], line["span_id"] = trace_id, span_id
        if getattr(record, "rf_job", None):
            line["job"] = record.rf_job  # type: ignore[attr-defined]
        if getattr(record, "rf_fields", None):
            line["fields"] = record.rf_fields  # type: ignore[attr-defined]
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class _Handler(logging.Handler):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


def set_up(*, verbose: bool = False, as_json: bool = False, quiet: bool = False) -> None:
    """Send the library's logs to standard error: information for those who run something, all with ``verbose``. For
    entry points; a library's user sets logging up as he likes."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(old)
    handler = _Handler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root.addHandler(handler)
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("rf_jobs").setLevel(logging.DEBUG if verbose else logging.NOTSET)
