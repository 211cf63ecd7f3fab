"""``rf-jobs jobs``: list, show, logs, watch, cancel, wait, clear."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.commands import _live, _records
from rf_jobs.cli.commands._moving import move_job
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common, confirm, confirmation, duration, paging
from rf_jobs.cli.session import Session, known_queue
from rf_jobs.cli.wording import number
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.steering import CLEARED
from rf_jobs.core.cancellations import TOO_LATE
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import JobRecord
from rf_jobs.core.searching import SearchResult
from rf_jobs.core.updates import StateChanged
from rf_jobs.words.errors import BackendError, JobError
from rf_jobs.words.printing import clean
from rf_jobs.words.states import State


@click.group
def jobs() -> None:
    """List, look for, show, follow, move, cancel and await jobs."""


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


@jobs.command("search")
@click.argument("text", required=False)
@click.option("--class", "job_class", metavar="NAME", help="Only this class: its name, or its last part.")
@click.option("--tag", help="Only jobs with this tag.")
@click.option(
    "--state", "states", multiple=True, type=click.Choice([state.value for state in State]), help="Repeat it."
)
@click.option("--queue", "queue", help="Only this queue.  [default: all]")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
@click.option(
    "--scan", type=click.IntRange(1), default=10_000, show_default=True, help="Look at no more than about so many jobs."
)
@click.option("--payload", is_flag=True, help="Show payloads (they may hold personal data).")
@common()
def search_jobs(
    session: Session, text: str | None, job_class: str | None, tag: str | None, states: tuple[str, ...], queue: str | None,
    limit: int, scan: int, payload: bool,
) -> int:  # fmt: skip
    """Look for jobs: TEXT is part of the id, of the payload (what is encrypted is not read) or of the last error.

    Exits with 1 where none was found.
    """

    async def work(manager: QueueManager) -> SearchResult:
        where = await known_queue(manager, queue) if queue else None
        return await manager.search(
            queue=where, states=states, job_class=job_class, tag=tag, text=text, limit=limit, scan=scan
        )

    with output.busy("looking"):
        found = session.run(work)
    if session.json:
        shown = [shapes.job(record, payload=payload) for record in found.jobs]
        output.document({"jobs": shown, "scanned": found.scanned, "complete": found.complete})
    elif found.jobs:
        _records.rows_of(found.jobs, payload=payload)
    if not session.json and not found.complete:
        click.echo(f"{number(found.scanned)} jobs were looked at, and there are more; see --limit and --scan", err=True)
    elif not session.json and not found.jobs:
        click.echo(f"none of {number(found.scanned)} jobs fits")
    return Exit.OK if found.jobs else Exit.NO


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
    """Show one job: its state, its timeline, its errors with tracebacks, the end of its log."""

    async def look(manager: QueueManager) -> tuple[JobRecord, list[LogLine]]:
        return await manager.job(job_id), await manager.job_logs(job_id)

    record, lines = session.run(look)
    if session.json:
        log = [shapes.log_line(line) for line in lines]
        output.document({**shapes.job(record, payload=payload, whole=True), "log": log})
    else:
        _records.show(record, lines, payload=payload)


@jobs.command("logs")
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job is over; with --json, an object a line.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the last so many lines.  [default: all]")
@common()
def show_logs(session: Session, job_id: str, follow: bool, limit: int | None) -> None:
    """Show what a job wrote with ctx.log, as far as it is kept."""

    async def follow_on(manager: QueueManager) -> None:
        lines = await manager.job_logs(job_id)
        left_out = lines[-limit - 1].number if limit is not None and len(lines) > limit else 0
        async for update in manager.watch(job_id):
            if isinstance(update, LogLine) and update.number > left_out:
                tell(update)

    def tell(line: LogLine) -> None:
        if session.json:
            _live.json_line(line)
        else:
            click.echo(_live.line_of(line))

    if follow:
        session.run(follow_on)
        return
    lines = session.run(lambda manager: manager.job_logs(job_id))
    lines = lines if limit is None else lines[-limit:]
    if session.json:
        output.document({"id": job_id, "lines": [shapes.log_line(line) for line in lines]})
    else:
        for line in lines:
            tell(line)


@jobs.command("watch")
@click.argument("job_id", metavar="ID")
@click.option("--timeout", type=duration, metavar="DURATION", help="Give up after this long.  [default: never]")
@common()
def watch_job(session: Session, job_id: str, timeout: float | None) -> int:
    """Follow a job until it is over: its states, failures, progress, log lines. With --json, an object a line.

    Exits with 0 when it completed, 1 when it died, was cancelled or expired, 5 when the time ran out.
    """

    async def follow_on(manager: QueueManager) -> str:
        state = ""
        async with patience(job_id, timeout):
            async for update in manager.watch(job_id):
                if isinstance(update, StateChanged):
                    state = update.state
                if session.json:
                    _live.json_line(update)
                else:
                    click.echo(_live.update_of(update))
        return state

    return Exit.OK if session.run(follow_on) == State.COMPLETED else Exit.NO


@asynccontextmanager
async def patience(job_id: str, timeout: float | None) -> AsyncGenerator[None]:
    """Raises ``TimeoutError`` with a sentence when ``timeout`` seconds pass."""
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError:
        raise TimeoutError(f"job {job_id} has not ended within {timeout:g} s; it goes on") from None


@jobs.command("cancel")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", default="", help="Kept with the job.")
@click.option("--wait", type=duration, metavar="DURATION", help="Wait until they have stopped, at most this long.")
@common()
def cancel_jobs(session: Session, ids: tuple[str, ...], reason: str, wait: float | None) -> int:
    """Cancel jobs that wait; ask the workers to stop those that run. Says how far that has come.

    Exits with 1 when one of them was over already, or had ended before it stopped, 5 when --wait was not long enough.
    """

    async def work(manager: QueueManager) -> dict[str, tuple[bool, JobRecord]]:
        asked = {job_id: await manager.cancel(job_id, reason or "cancelled by rf-jobs jobs cancel") for job_id in ids}
        if wait is not None:
            async with asyncio.timeout(wait):
                for job_id in ids:
                    async for _ in manager.watch(job_id):
                        pass
        return {job_id: (new, await manager.job(job_id)) for job_id, new in asked.items()}

    try:
        done = session.change(work)
    except TimeoutError:
        raise TimeoutError(f"not all of them have stopped within {wait:g} s; jobs show says how far each is") from None
    if session.json:
        told = [{"id": job_id, "cancelled": new, **_fate(record)} for job_id, (new, record) in done.items()]
        output.document({"jobs": told})
    else:
        for job_id, (new, record) in done.items():
            click.echo(f"{job_id}: {_live.fate_of(record) if new else f'was over already ({record.state})'}")
    late = any(record.cancellation is not None and record.cancellation.stage == TOO_LATE for _, record in done.values())
    return Exit.NO if late or not all(new for new, _ in done.values()) else Exit.OK


def _fate(record: JobRecord) -> dict[str, object]:
    request = record.cancellation
    return {"state": record.state, "cancellation": None if request is None else shapes.cancellation(request)}


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
        click.echo(clean(str(failure), lines=True), err=True)
    else:
        click.echo(_records.as_json(result, indent=True))
    return Exit.OK if failure is None else Exit.NO


jobs.add_command(move_job)


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
