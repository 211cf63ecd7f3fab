"""``rf-jobs queues``: what stands where."""

from __future__ import annotations

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.options import common, paging
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import NOTHING, class_name, duration, number
from rf_jobs.client.manager import QueueManager
from rf_jobs.core import census
from rf_jobs.core.census import Group
from rf_jobs.core.records import QueueInfo

STATES = ("ready", "scheduled", "running", "blocked", "parked", "dead", "completed")


@click.command
@paging
@common()
def queues(session: Session, limit: int, offset: int) -> None:
    """List the queues: how many jobs stand in each state, and how long the oldest has been ready.

    Finished jobs are counted as far as they are kept; `ledger` (in --json) counts all that ever were.
    """
    shown, parked, total = session.run(lambda manager: _look(manager, offset, limit))
    if session.json:
        output.document({"queues": [shapes.queue(info, parked.get(info.name, ())) for info in shown], "total": total})
        return
    if not total:
        click.echo("no queue has ever held a job")
        return
    output.table(
        ["queue", *STATES, "oldest ready", ""],
        [_row(info, parked.get(info.name, [])) for info in shown],
        right=(*STATES, "oldest ready"),
    )
    for group in (group for info in shown for group in parked.get(info.name, [])):
        name = f"{class_name(group.job_class)} version {group.version}"
        click.echo(f"parked in {group.queue}: {number(group.jobs)} x {name}: {group.verdict or 'no reason was kept'}")
    output.page_note(len(shown), offset, total)


async def _look(manager: QueueManager, offset: int, limit: int) -> tuple[list[QueueInfo], dict[str, list[Group]], int]:
    """A page of queues, what is parked in them by class, and how many queues there are."""
    found = await manager.queues()
    shown = found[offset : offset + limit]
    parked: dict[str, list[Group]] = {}
    for group in (await census.parked(manager.store, [info.name for info in shown if info.counts["parked"]])).groups:
        parked.setdefault(group.queue, []).append(group)
    return shown, parked, len(found)


def _row(info: QueueInfo, parked: list[Group]) -> list[str]:
    classes = ", ".join(sorted({class_name(group.job_class) for group in parked}))
    notes = [
        *(["paused"] if info.paused else []),
        *([f"parked: {classes}"] if classes else []),
        *([f"ledger is off by {info.imbalance}"] if info.imbalance else []),
    ]
    age = duration(info.oldest_ready_seconds) if info.counts["ready"] else NOTHING
    return [info.name, *(number(info.counts[state]) for state in STATES), age, ", ".join(notes)]
