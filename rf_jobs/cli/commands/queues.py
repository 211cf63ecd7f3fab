"""``rf-jobs queues``: what stands where."""

from __future__ import annotations

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.options import common, paging
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import NOTHING, duration, number
from rf_jobs.core.records import QueueInfo

STATES = ("ready", "scheduled", "running", "blocked", "parked", "dead", "completed")


@click.command
@paging
@common()
def queues(session: Session, limit: int, offset: int) -> None:
    """List the queues: how many jobs stand in each state, and how long the oldest has been ready.

    Finished jobs are counted as far as they are kept; `ledger` (in --json) counts all that ever were.
    """
    found = session.run(lambda manager: manager.queues())
    shown = found[offset : offset + limit]
    if session.json:
        output.document({"queues": [shapes.queue(info) for info in shown], "total": len(found)})
        return
    if not found:
        click.echo("no queue has ever held a job")
        return
    output.table(
        ["queue", *STATES, "oldest ready", ""], [_row(info) for info in shown], right=(*STATES, "oldest ready")
    )
    output.page_note(len(shown), offset, len(found))


def _row(info: QueueInfo) -> list[str]:
    notes = [*(["paused"] if info.paused else []), *([f"ledger is off by {info.imbalance}"] if info.imbalance else [])]
    age = duration(info.oldest_ready_seconds) if info.counts["ready"] else NOTHING
    return [info.name, *(number(info.counts[state]) for state in STATES), age, ", ".join(notes)]
