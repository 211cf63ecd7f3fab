"""How ``jobs logs``, ``jobs watch`` and ``jobs cancel`` show what goes on."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from rf_jobs.cli import shapes
from rf_jobs.cli.wording import duration, short
from rf_jobs.core.cancellations import ACKNOWLEDGED, Cancellation
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import AttemptError, JobRecord, Progress
from rf_jobs.core.updates import JobUpdate, StateChanged
from rf_jobs.words.printing import clean


def line_of(line: LogLine) -> str:
    """A line of a job's log, for people."""
    fields = "".join(f"  {name}={short(str(value), 200)}" for name, value in line.fields.items())
    time = f"{line.at.astimezone():%Y-%m-%d %H:%M:%S}"
    return f"{time} {line.level_name:<7} [{line.attempt}] {clean(line.message, lines=True)}{clean(fields)}"


def update_of(update: JobUpdate) -> str:
    """What changed, on a line."""
    match update:
        case StateChanged():
            attempt = f", attempt {update.attempt}" if update.state == "running" else ""
            return f"is {update.state}{attempt}" + (f": {short(update.reason, 200)}" if update.reason else "")
        case Progress():
            return progress_of(update)
        case LogLine():
            return line_of(update)
        case AttemptError():
            return f"attempt {update.attempt} failed: {short(f'{update.type}: {update.message}', 200)}"
        case Cancellation():
            return f"cancellation {stage_of(update)}"


def progress_of(progress: Progress) -> str:
    """``35 % (7 of 20) message``; without a total, what was done."""
    done = (
        f"{progress.percentage:.0f} % ({progress.current:g} of {progress.total:g})"
        if progress.total
        else f"{progress.current:g}"
    )
    return f"{done} {clean(progress.message)}".rstrip()


def stage_of(request: Cancellation) -> str:
    """How far it is, and how long that took."""
    since = request.requested_at
    at = request.acknowledged_at if request.stage == ACKNOWLEDGED else request.stopped_at
    return request.stage + (
        f" after {duration((at - since).total_seconds())}" if at is not None and since is not None else ""
    )


def fate_of(record: JobRecord) -> str:
    """What became of a request to cancel a job."""
    request = record.cancellation
    if request is None:
        return record.state
    said = {
        "requested": "asked to stop; its worker has not heard of it yet",
        "acknowledged": "told to stop; it goes on for now",
        "stopped": "cancelled",
        "too late": f"had ended before it stopped: {record.state}",
    }
    took = f" ({stage_of(request)})" if request.requested_at and request.stage != "requested" else ""
    return said[request.stage] + took


def json_line(update: JobUpdate) -> None:
    """One JSON object on a line."""
    click.echo(msgspec.json.encode(shape_of(update), enc_hook=str).decode())


def shape_of(update: JobUpdate) -> dict[str, Any]:
    """An update's JSON form; ``kind`` says which."""
    match update:
        case StateChanged():
            return {
                "kind": "state", "state": update.state, "attempt": update.attempt, "at": shapes.time(update.at),
                "reason": update.reason,
            }  # fmt: skip
        case Progress():
            return {"kind": "progress", **shapes.progress(update)}
        case LogLine():
            return {"kind": "log", **shapes.log_line(update)}
        case AttemptError():
            return {"kind": "failure", **shapes.error(update)}
        case Cancellation():
            return {"kind": "cancellation", **shapes.cancellation(update)}
