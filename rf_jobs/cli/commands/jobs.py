"""``rf-jobs jobs``: list, show, cancel, wait, clear."""

from __future__ import annotations

from collections.abc import Sequence

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.commands import _records
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common, confirm, confirmation, duration, paging
from rf_jobs.cli.session import Session, known_queue
from rf_jobs.client.manager import CLEARED, QueueManager
from rf_jobs.core.records import JobRecord
from rf_jobs.words.errors import BackendError, JobError
from rf_jobs.words.states import State


@click.group
def jobs() -> None:
    """List, show, cancel and await jobs."""


@jobs.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State]),
    help="Only these; repeat it.  [default: all]",
)
@click.option("--queue", "queue", help="Only this queue.  [default: all]")
@click.option("--payload", is_flag=True, help="Show payloads (they may hold personal data).")
@paging
@common()
def list_jobs(
    session: Session, states: Sequence[str], queue: str | None, payload: bool, limit: int, offset: int
) -> None:
    """List jobs by state and queue: waiting ones in the order in which they come, finished ones newest first."""
    chosen = [State(state) for state in states] or list(State)

    async def work(manager: QueueManager) -> tuple[list[JobRecord], int]:
        return await _page(manager, chosen, await known_queue(manager, queue) if queue else None, offset, limit)

    records, total = session.run(work)
    if session.json:
        output.document({"jobs": [shapes.job(record, payload=payload) for record in records], "total": total})
    elif not records:
        click.echo("no such job")
    else:
        _records.rows_of(records, payload=payload)
        output.page_note(len(records), offset, total)


async def _page(
    manager: QueueManager, states: Sequence[State], queue: str | None, offset: int, limit: int
) -> tuple[list[JobRecord], int]:
    """A page that may run over several structures, and how many there are in all."""
    found: list[JobRecord] = []
    total = 0
    for info in await manager.queues():
        if queue is not None and info.name != queue:
            continue
        for state in states:
            count = info.counts[state]
            start = max(0, offset - total)
            if start < count and len(found) < limit:
                wanted = limit - len(found)
                found += await manager.inspector.page(state, info.name, start, wanted, newest_first=state.is_final)
            total += count
    return found, total


@jobs.command("show")
@click.argument("job_id", metavar="ID")
@click.option("--payload", is_flag=True, help="Show payload and result (they may hold personal data).")
@common()
def show_job(session: Session, job_id: str, payload: bool) -> None:
    """Show one job: its state, its timeline, its errors with tracebacks."""
    record = session.run(lambda manager: manager.job(job_id))
    if session.json:
        output.document(shapes.job(record, payload=payload, whole=True))
    else:
        _records.show(record, payload=payload)


@jobs.command("cancel")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", help="Kept with the job.")
@common()
def cancel_jobs(session: Session, ids: tuple[str, ...], reason: str) -> int:
    """Cancel jobs that wait; ask the workers to stop those that run.

    Exits with 1 when one of them was over already.
    """

    async def work(manager: QueueManager) -> dict[str, bool]:
        return {job_id: await manager.cancel(job_id, reason or "cancelled by rf-jobs jobs cancel") for job_id in ids}

    done = session.change(work)
    if session.json:
        output.document({"jobs": [{"id": job_id, "cancelled": new} for job_id, new in done.items()]})
    else:
        for job_id, new in done.items():
            click.echo(f"{job_id}: {'cancelled, or asked to stop' if new else 'was over already'}")
    return Exit.OK if all(done.values()) else Exit.NO


@jobs.command("wait")
@click.argument("job_id", metavar="ID")
@click.option("--timeout", type=duration, metavar="DURATION", help="Give up after this long.  [default: never]")
@common()
def wait_job(session: Session, job_id: str, timeout: float | None) -> int:
    """Wait until a job ends, and print its result.

    Exits with 0 when it completed, 1 when it died, was cancelled or expired, 5 when the time ran out.
    """
    return session.run(lambda manager: wait_and_tell(manager, session, job_id, timeout))


async def wait_and_tell(manager: QueueManager, session: Session, job_id: str, timeout: float | None) -> int:
    """Wait for a job and print how it ended; answers with the exit code."""
    failure: JobError | None = None
    result = None
    try:
        result = await manager.wait(job_id, timeout)
    except TimeoutError:
        raise TimeoutError(f"job {job_id} has not ended within {timeout:g} s; it goes on") from None
    except BackendError:
        raise
    except JobError as error:
        failure = error
    if session.json:
        state = State.COMPLETED.value if failure is None else (await manager.job(job_id)).state
        output.document(
            {"id": job_id, "state": state, "result": result, "error": None if failure is None else str(failure)}
        )
    elif failure is not None:
        click.echo(str(failure), err=True)
    else:
        click.echo(_records.as_json(result, indent=True))
    return Exit.OK if failure is None else Exit.NO


@jobs.command("clear")
@click.argument("queue")
@confirmation
@common()
def clear_queue(session: Session, queue: str, yes: bool) -> None:
    """Remove all jobs that wait in a queue (ready, scheduled, blocked, parked) for good; they count as cancelled."""

    async def look(manager: QueueManager) -> int:
        counts = await manager.counts(await known_queue(manager, queue))
        return sum(counts[state] for state in CLEARED)

    waiting = session.run(look)
    if waiting:
        confirm(session, f"Remove {waiting} waiting jobs from {queue!r} for good?", yes=yes)
    with output.busy(f"removing the jobs of {queue}"):
        removed = session.change(lambda manager: manager.clear(queue))
    if session.json:
        output.document({"queue": queue, "removed": removed})
    else:
        click.echo(f"removed {removed} jobs")
