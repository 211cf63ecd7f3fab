"""``rf-jobs batches``: batches and chains."""

from __future__ import annotations

from typing import Any

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common, paging
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import NOTHING, ago, class_name, number, short
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.workflow.records import BatchRecord
from rf_jobs.core.records import JobRecord
from rf_jobs.words.printing import clean

COLUMNS = ("id", "kind", "name", "state", "done", "total", "failed", "dispatched")


@click.group
def batches() -> None:
    """List, show, cancel and retry batches and chains."""


@batches.command("list")
@paging
@common()
def list_batches(session: Session, limit: int, offset: int) -> None:
    """List them, the newest first. Finished ones are kept for batch_keep_seconds."""
    found = session.run(lambda manager: manager.batches(offset, limit))
    if session.json:
        output.document({"batches": [_shape(record) for record in found]})
    elif not found:
        click.echo("no batch or chain is known")
    else:
        output.table(COLUMNS, [_row(record) for record in found], right=("done", "total", "failed"))


def _row(record: BatchRecord) -> tuple[str, ...]:
    progress = record.progress
    counts = (number(progress.processed), number(progress.total), number(progress.failed))
    return (
        str(record.id),
        record.kind,
        short(record.name, 30) or NOTHING,
        record.state,
        *counts,
        ago(record.created_at),
    )


def _shape(record: BatchRecord) -> dict[str, Any]:
    progress = record.progress
    return {
        "id": str(record.id),
        "kind": record.kind,
        "name": record.name,
        "state": record.state,
        "total": progress.total,
        "processed": progress.processed,
        "pending": progress.pending,
        "failed": progress.failed,
        "percentage": progress.percentage,
        "created_at": shapes.time(record.created_at),
        "finished_at": shapes.time(record.finished_at),
        "outer": str(record.outer) if record.outer is not None else None,
        "first_failed": record.first_failed or None,
        "reason": record.reason,
        "fired": list(record.fired),
        "abandoned": record.abandoned,
    }


@batches.command("show")
@click.argument("batch_id", metavar="ID")
@common()
def show_batch(session: Session, batch_id: str) -> None:
    """Show one, with the members that did not complete."""

    async def look(manager: QueueManager) -> tuple[BatchRecord, list[JobRecord]]:
        handle = manager.batch(batch_id)
        return await handle.record(), await handle.failed_jobs()

    record, failed = session.run(look)
    if session.json:
        output.document({**_shape(record), "failed_jobs": [shapes.job(job) for job in failed]})
        return
    progress = record.progress
    facts = [
        ("id", str(record.id)),
        ("kind", record.kind),
        ("name", record.name or NOTHING),
        ("state", record.state + (" (its dispatch was never completed)" if record.abandoned else "")),
        (
            "progress",
            f"{progress.processed} of {progress.total}, {progress.failed} failed ({progress.percentage:.0f} %)",
        ),
        ("dispatched", ago(record.created_at)),
        ("finished", ago(record.finished_at)),
        ("member of", str(record.outer) if record.outer is not None else NOTHING),
        ("callbacks run", ", ".join(record.fired) or NOTHING),
    ]
    if record.reason:
        facts.append(("stopped by", record.reason))
    output.pairs(facts)
    if failed:
        output.heading("did not complete")
        for job in failed:
            last = job.last_error
            why = f"{last.type}: {last.message}" if last is not None else job.reason
            click.echo(f"{job.id}  {class_name(job.job_class)}  {job.state}  {clean(short(why))}")


@batches.command("cancel")
@click.argument("batch_id", metavar="ID")
@click.option("--reason", default="", help="Kept with its jobs.")
@common()
def cancel_batch(session: Session, batch_id: str, reason: str) -> int:
    """Cancel what waits of it, and ask what runs to stop. Exits with 1 where it was over already."""
    done = session.change(
        lambda manager: manager.batch(batch_id).cancel(reason or "cancelled by rf-jobs batches cancel")
    )
    if session.json:
        output.document({"id": batch_id, "cancelled": done})
    else:
        click.echo(f"{batch_id}: {'cancelled' if done else 'was over already'}")
    return Exit.OK if done else Exit.NO


@batches.command("retry")
@click.argument("batch_id", metavar="ID")
@common()
def retry_batch(session: Session, batch_id: str) -> int:
    """Replay its dead letters; what was cancelled because of them runs again too. Exits with 1 where it has none."""
    count = session.change(lambda manager: manager.batch(batch_id).retry_failed())
    if session.json:
        output.document({"id": batch_id, "replayed": count})
    else:
        click.echo(f"{batch_id}: {number(count)} replayed")
    return Exit.OK if count else Exit.NO
