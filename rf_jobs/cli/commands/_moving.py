"""``rf-jobs jobs move``: another priority or another time for a waiting job."""

from __future__ import annotations

from datetime import datetime

import click

from rf_jobs.cli import output
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common, duration
from rf_jobs.cli.session import Session
from rf_jobs.client.manager import QueueManager
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.states import Priority


@click.command("move")
@click.argument("job_id", metavar="ID")
@click.option(
    "--priority", type=click.Choice([p.name.lower() for p in Priority]), help="Its priority; it keeps its age."
)
@click.option("--delay", type=duration, metavar="DURATION", help="Run it so long from now.")
@click.option("--at", type=datetime.fromisoformat, metavar="TIME", help="Run it then: ISO 8601 with a time zone.")
@click.option("--now", is_flag=True, help="Run it at once.")
@common()
def move_job(
    session: Session, job_id: str, priority: str | None, delay: float | None, at: datetime | None, now: bool
) -> int:
    """Give a waiting job another priority, another time, or both.

    A job that waits for others still does. Exits with 1 where it does not wait (any more).
    """
    timed = [value for value in (delay, at, now or None) if value is not None]
    if len(timed) > 1 or not (timed or priority):
        raise InvalidOption("give --priority, and one of --delay, --at and --now, or one of the two")

    async def work(manager: QueueManager) -> bool:
        moved = True
        if priority is not None:
            moved = await manager.reprioritize(job_id, priority)
        if timed:
            moved = await manager.reschedule(job_id, delay=delay, at=at) and moved
        return moved

    moved = session.change(work)
    if session.json:
        output.document({"id": job_id, "moved": moved})
    else:
        click.echo(f"{job_id}: {'moved' if moved else 'does not wait, and was not moved'}")
    return Exit.OK if moved else Exit.NO
