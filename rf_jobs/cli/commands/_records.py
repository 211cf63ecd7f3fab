"""How ``jobs`` and ``failed`` show jobs."""

from __future__ import annotations

import click
import msgspec

from rf_jobs.cli import output
from rf_jobs.cli.commands._live import line_of, progress_of, stage_of
from rf_jobs.cli.wording import ago, class_name, duration, number, short, size, when
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import JobRecord
from rf_jobs.words.printing import clean
from rf_jobs.words.states import Priority


def rows_of(records: list[JobRecord], *, payload: bool) -> None:
    """A table of jobs."""
    columns = ["id", "class", "queue", "state", "attempt", "dispatched", "note"]
    output.table(
        [*columns, *(["payload"] if payload else [])],
        [_row(record, payload=payload) for record in records],
        right=("attempt",),
    )


def _row(record: JobRecord, *, payload: bool) -> list[str]:
    cells = [
        str(record.id), class_name(record.job_class), record.queue, record.state, attempts(record), ago(record.dispatched_at),
        _note(record),
    ]  # fmt: skip
    return [*cells, *([short(as_json(record.payload), 80)] if payload else [])]


def attempts(record: JobRecord) -> str:
    """``2/3``; the class's own maximum is not known here."""
    return f"{record.attempt}/{record.max_attempts}" if record.max_attempts else str(record.attempt)


def _note(record: JobRecord) -> str:
    if record.due_at is not None:
        return f"due {ago(record.due_at)}"
    if record.state == "running":
        how_far = f", {record.progress.percentage:.0f} %" if record.progress and record.progress.total else ""
        return f"since {ago(record.started_at).removesuffix(' ago')}{how_far}{', stopping' if record.cancel_requested else ''}"
    last = record.last_error
    if last is not None and record.state != "completed":
        return short(f"{last.type}: {last.message}")
    return short(record.reason)


SHOWN_LINES = 20


def show(record: JobRecord, lines: list[LogLine], *, payload: bool) -> None:
    """One job, whole, with the end of its log."""
    output.pairs([(name, value) for name, value in _facts(record) if value])
    if payload:
        output.heading("payload")
        click.echo(clean(as_json(record.payload, indent=True), lines=True))
        if record.has_result:
            output.heading("result")
            click.echo(clean(as_json(record.result, indent=True), lines=True))
    output.heading("timeline")
    output.table(["time", "event", "detail"], [[when(m.at), m.event, m.detail] for m in record.timeline])
    for error in record.errors:
        ran = f" after {duration((error.at - error.started_at).total_seconds())}" if error.started_at else ""
        output.heading(
            f"attempt {error.attempt} failed{ran}, {when(error.at)}, on {clean(error.worker) or 'no worker'}"
        )
        click.echo(clean(error.traceback.rstrip() or f"{error.type}: {error.message}", lines=True))
    if lines:
        some = (
            f", the last {SHOWN_LINES} of {number(len(lines))} lines; jobs logs shows all"
            if len(lines) > SHOWN_LINES
            else ""
        )
        output.heading(f"log{some}")
        for line in lines[-SHOWN_LINES:]:
            click.echo(line_of(line))


def _facts(record: JobRecord) -> list[tuple[str, str]]:
    progress = record.progress
    crashes = f", {record.crashes} crashes" if record.crashes else ""
    return [
        ("id", str(record.id)),
        ("class", record.job_class),
        ("queue", record.queue),
        ("state", record.state + (" (asked to stop)" if record.cancel_requested and record.state == "running" else "")),
        ("reason", record.reason),
        (
            "priority",
            Priority(record.priority).name.lower() if record.priority in list(Priority) else str(record.priority),
        ),
        ("attempt", attempts(record) + crashes),
        ("progress", progress_of(progress) if progress else ""),
        ("batch", record.batch),
        ("chain", record.chain),
        ("held by", record.held_by),
        ("unique lock", record.unique_lock),
        ("cancellation", stage_of(record.cancellation) if record.cancellation else ""),
        ("dispatched", when(record.dispatched_at)),
        ("due", when(record.due_at) if record.due_at else ""),
        ("expires", when(record.expires_at) if record.expires_at else ""),
        ("started", when(record.started_at) if record.started_at else ""),
        ("finished", when(record.finished_at) if record.finished_at else ""),
        ("worker", record.worker),
        ("tags", ", ".join(record.tags)),
        ("trace", record.trace_id),
        ("payload", f"{size(len(as_json(record.payload)))}; --payload shows it"),
        ("result", "kept; --payload shows it" if record.has_result else ""),
        ("errors", number(len(record.errors)) if record.errors else ""),
    ]


def as_json(value: object, *, indent: bool = False) -> str:
    """A value from the store, as text."""
    data = msgspec.json.encode(value, enc_hook=str)
    return (msgspec.json.format(data, indent=2) if indent else data).decode()
