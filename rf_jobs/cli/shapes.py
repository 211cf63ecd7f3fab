"""The JSON forms of what the read model answers with. Names and units are fixed: scripts rely on them.

Times are ISO 8601 in UTC, durations seconds. Payloads and results are left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rf_jobs.core.records import AttemptError, JobRecord, QueueInfo, WorkerInfo


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def queue(info: QueueInfo) -> dict[str, Any]:
    """A queue."""
    return {
        "name": info.name,
        "paused": info.paused,
        "counts": dict(info.counts),
        "oldest_ready_seconds": info.oldest_ready_seconds,
        "oldest_running_seconds": info.oldest_running_seconds,
        "oldest_dead_seconds": info.oldest_dead_seconds,
        "ledger": info.ledger,
        "imbalance": info.imbalance,
    }


def worker(info: WorkerInfo) -> dict[str, Any]:
    """A worker process."""
    return {
        "id": info.id,
        "host": info.host,
        "pid": info.pid,
        "state": info.state,
        "queues": list(info.queues),
        "slots": info.slots,
        "busy": info.busy,
        "utilization": info.utilization,
        "started_at": _time(info.started_at),
        "last_beat": _time(info.last_beat),
        "version": info.version,
    }


def job(record: JobRecord, *, payload: bool = False, whole: bool = False) -> dict[str, Any]:
    """A job; ``whole`` with timeline and errors, ``payload`` with payload and result."""
    last = record.last_error
    shape: dict[str, Any] = {
        "id": str(record.id),
        "class": record.job_class,
        "queue": record.queue,
        "state": record.state,
        "priority": record.priority,
        "attempt": record.attempt,
        "max_attempts": record.max_attempts,
        "crashes": record.crashes,
        "dispatched_at": _time(record.dispatched_at),
        "due_at": _time(record.due_at),
        "expires_at": _time(record.expires_at),
        "started_at": _time(record.started_at),
        "finished_at": _time(record.finished_at),
        "worker": record.worker,
        "reason": record.reason,
        "tags": list(record.tags),
        "trace_id": record.trace_id,
        "cancel_requested": record.cancel_requested,
        "last_error": None if last is None else {"type": last.type, "message": last.message},
    }
    if record.progress is not None:
        p = record.progress
        shape["progress"] = {"current": p.current, "total": p.total, "percentage": p.percentage, "message": p.message}
    if whole:
        shape["timeline"] = [{"at": _time(m.at), "event": m.event, "detail": m.detail} for m in record.timeline]
        shape["errors"] = [_error(error) for error in record.errors]
        shape["has_result"] = record.has_result
    if payload:
        shape["payload"] = record.payload
        shape["result"] = record.result
    return shape


def _error(error: AttemptError) -> Mapping[str, Any]:
    return {
        "attempt": error.attempt,
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
        "worker": error.worker,
        "started_at": _time(error.started_at),
        "at": _time(error.at),
    }
