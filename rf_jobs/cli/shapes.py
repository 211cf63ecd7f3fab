"""The JSON forms of what the read model answers with. Names and units are fixed: scripts rely on them.

Times are ISO 8601 in UTC, durations seconds. Payloads and results are left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rf_jobs.core.cancellations import Cancellation
from rf_jobs.core.census import Group
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import AttemptError, JobRecord, Progress, QueueInfo, WorkerInfo


def time(moment: datetime | None) -> str | None:
    """A time; None where there is none."""
    return None if moment is None else moment.isoformat(timespec="milliseconds")


def queue(info: QueueInfo, parked: Sequence[Group] = ()) -> dict[str, Any]:
    """A queue; ``parked``: what is parked in it, by class, version and reason."""
    return {
        "name": info.name,
        "paused": info.paused,
        "counts": dict(info.counts),
        "oldest_ready_seconds": info.oldest_ready_seconds,
        "oldest_running_seconds": info.oldest_running_seconds,
        "oldest_dead_seconds": info.oldest_dead_seconds,
        "ledger": info.ledger,
        "imbalance": info.imbalance,
        "parked_classes": [
            {"class": group.job_class, "version": group.version, "jobs": group.jobs, "reason": group.verdict}
            for group in parked
        ],
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
        "started_at": time(info.started_at),
        "last_beat": time(info.last_beat),
        "version": info.version,
        "classes": None if info.catalog is None else info.catalog.classes,
        "aliases": None if info.catalog is None else info.catalog.aliases,
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
        "dispatched_at": time(record.dispatched_at),
        "due_at": time(record.due_at),
        "expires_at": time(record.expires_at),
        "started_at": time(record.started_at),
        "finished_at": time(record.finished_at),
        "worker": record.worker,
        "reason": record.reason,
        "tags": list(record.tags),
        "trace_id": record.trace_id,
        "batch": record.batch or None,
        "chain": record.chain or None,
        "held_by": record.held_by or None,
        "cancel_requested": record.cancel_requested,
        "last_error": None if last is None else {"type": last.type, "message": last.message},
    }
    if record.progress is not None:
        shape["progress"] = progress(record.progress)
    if record.cancellation is not None:
        shape["cancellation"] = cancellation(record.cancellation)
    if whole:
        shape["timeline"] = [{"at": time(m.at), "event": m.event, "detail": m.detail} for m in record.timeline]
        shape["errors"] = [error(each) for each in record.errors]
        shape["has_result"] = record.has_result
    if payload:
        shape["payload"] = record.payload
        shape["result"] = record.result
    return shape


def error(failed: AttemptError) -> Mapping[str, Any]:
    """A failed attempt."""
    return {
        "attempt": failed.attempt,
        "type": failed.type,
        "message": failed.message,
        "traceback": failed.traceback,
        "worker": failed.worker,
        "started_at": time(failed.started_at),
        "at": time(failed.at),
    }


def progress(how_far: Progress) -> dict[str, Any]:
    """How far a job is."""
    return {
        "current": how_far.current,
        "total": how_far.total,
        "percentage": how_far.percentage,
        "message": how_far.message,
    }


def cancellation(request: Cancellation) -> dict[str, Any]:
    """How far a request to stop a job has come."""
    return {
        "stage": request.stage,
        "reason": request.reason,
        "requested_at": time(request.requested_at),
        "acknowledged_at": time(request.acknowledged_at),
        "stopped_at": time(request.stopped_at),
    }


def log_line(line: LogLine) -> dict[str, Any]:
    """A line of a job's log."""
    return {
        "number": line.number,
        "at": time(line.at),
        "level": line.level_name,
        "attempt": line.attempt,
        "message": line.message,
        "fields": line.fields,
    }
