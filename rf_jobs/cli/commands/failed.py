"""``rf-jobs failed``: what to do with dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.commands import _records
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common, confirm, confirmation, duration, paging
from rf_jobs.cli.session import Session, known_queue
from rf_jobs.cli.wording import class_name, short, when
from rf_jobs.client.manager import QueueManager
from rf_jobs.core.inspector import Filters
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import JobRecord
from rf_jobs.words.states import State


@click.group
def failed() -> None:
    """List, show, retry and forget dead letters: jobs that failed for good."""


def filtering(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which dead letters are meant, as ``filters``. All that are given must hold."""

    @wraps(function)
    def command(
        *args: Any, queue: str | None, job_class: str | None, error: str | None, tag: str | None, **options: Any
    ) -> Any:
        return function(*args, filters=Filters(queue, job_class, error, tag), **options)

    wrapped: Callable[..., Any] = command
    for option in (
        click.option("--tag", help="Those with this tag."),
        click.option("--error", help="Those whose last error's type or message has this in it."),
        click.option("--class", "job_class", help="Those of this class: its full name, or the part after the colon."),
        click.option("--queue", help="Those of this queue."),
    ):
        wrapped = option(wrapped)
    return wrapped


def _check(ids: tuple[str, ...], filters: Filters, everything: bool) -> None:
    """Exactly one way of saying which."""
    ways = [bool(ids), filters != Filters(), everything]
    if sum(ways) != 1:
        raise click.UsageError("Say which dead letters: ids, or filters (--queue, --class, --error, --tag), or --all.")


async def _known(manager: QueueManager, filters: Filters) -> None:
    if filters.queue is not None:
        await known_queue(manager, filters.queue)


@failed.command("list")
@filtering
@click.option("--payload", is_flag=True, help="Show payloads (they may hold personal data).")
@paging
@common()
def list_failed(session: Session, filters: Filters, payload: bool, limit: int, offset: int) -> None:
    """List dead letters, newest first within a queue."""

    async def work(manager: QueueManager) -> tuple[list[JobRecord], int | None]:
        await _known(manager, filters)
        found = await manager.failed_jobs(filters.queue, offset, limit, filters)
        if filters != Filters(filters.queue):
            return found, None  # counting them would mean reading them all
        counts = [info.counts[State.DEAD] for info in await manager.queues() if filters.queue in (None, info.name)]
        return found, sum(counts)

    records, total = session.run(work)
    if session.json:
        output.document({"jobs": [shapes.job(record, payload=payload) for record in records], "total": total})
    elif not records:
        click.echo("no dead letters" + (" that fit" if filters != Filters() or offset else ""))
    else:
        rows = [_row(record, payload=payload) for record in records]
        output.table(
            ["id", "class", "queue", "attempts", "died", "error", *(["payload"] if payload else [])],
            rows,
            right=("attempts",),
        )
        output.page_note(len(records), offset, total)


def _row(record: JobRecord, *, payload: bool) -> list[str]:
    last = record.last_error
    error = short(f"{last.type}: {last.message}" if last else record.reason)
    cells = [
        str(record.id),
        class_name(record.job_class),
        record.queue,
        _records.attempts(record),
        when(record.finished_at),
        error,
    ]
    return [*cells, *([short(_records.as_json(record.payload), 80)] if payload else [])]


@failed.command("show")
@click.argument("job_id", metavar="ID")
@click.option("--payload", is_flag=True, help="Show the payload (it may hold personal data).")
@common()
def show_failed(session: Session, job_id: str, payload: bool) -> int:
    """Show one dead letter with its whole history. Exits with 1 when the job is none."""

    async def look(manager: QueueManager) -> tuple[JobRecord, list[LogLine]]:
        return await manager.job(job_id), await manager.job_logs(job_id)

    record, lines = session.run(look)
    if session.json:
        log = [shapes.log_line(line) for line in lines]
        output.document({**shapes.job(record, payload=payload, whole=True), "log": log})
    else:
        _records.show(record, lines, payload=payload)
    if record.state != State.DEAD:
        click.echo(f"job {job_id} is no dead letter: it is {record.state}", err=True)
    return Exit.OK if record.state == State.DEAD else Exit.NO


@failed.command("retry")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filtering
@click.option("--all", "everything", is_flag=True, help="All of them.")
@confirmation
@common()
def retry(session: Session, ids: tuple[str, ...], filters: Filters, everything: bool, yes: bool) -> int:
    """Replay dead letters, with all their attempts: by id, by filters, or all. Exits with 1 when there was none."""
    _check(ids, filters, everything)
    if ids:
        return _one_by_one(session, ids, lambda manager, job_id: manager.retry_failed(job_id), "replayed")
    return _many(session, filters, lambda manager: manager.retry_all_failed(filters), "Replay", "replayed", yes=yes)


@failed.command("forget")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filtering
@click.option("--all", "everything", is_flag=True, help="All of them.")
@confirmation
@common()
def forget(session: Session, ids: tuple[str, ...], filters: Filters, everything: bool, yes: bool) -> int:
    """Remove dead letters for good: by id, by filters, or all. Exits with 1 when there was none."""
    _check(ids, filters, everything)
    if ids:
        return _one_by_one(session, ids, lambda manager, job_id: manager.forget_failed(job_id), "forgotten")
    return _many(session, filters, lambda manager: manager.purge_failed(0, filters), "Forget", "forgotten", yes=yes)


@failed.command("purge")
@click.option(
    "--older-than",
    type=duration,
    required=True,
    metavar="DURATION",
    help="Those that died longer ago than this: 30d, 12h.",
)
@filtering
@confirmation
@common()
def purge(session: Session, older_than: float, filters: Filters, yes: bool) -> int:
    """Remove dead letters that died longer ago than a time, for good. Exits with 0 also when there was none."""
    if not yes:
        session.run(lambda manager: _known(manager, filters))
        confirm(session, f"Forget the dead letters older than {older_than:g} s for good?", yes=False)
    _many(session, filters, lambda manager: manager.purge_failed(older_than, filters), "Forget", "forgotten", yes=True)
    return Exit.OK


def _one_by_one(
    session: Session, ids: tuple[str, ...], act: Callable[[QueueManager, str], Awaitable[bool]], word: str
) -> int:
    async def work(manager: QueueManager) -> dict[str, bool]:
        return {job_id: await act(manager, job_id) for job_id in ids}

    done = session.change(work)
    if session.json:
        output.document(
            {"jobs": [{"id": job_id, word: new} for job_id, new in done.items()], "count": sum(done.values())}
        )
    else:
        for job_id, new in done.items():
            click.echo(f"{job_id}: {word}" if new else f"{job_id}: is no dead letter")
    return Exit.OK if all(done.values()) else Exit.NO


def _many(
    session: Session,
    filters: Filters,
    act: Callable[[QueueManager], Awaitable[int]],
    verb: str,
    word: str,
    *,
    yes: bool,
) -> int:
    async def count(manager: QueueManager) -> int:
        await _known(manager, filters)
        if filters == Filters(filters.queue):
            return sum(info.counts[State.DEAD] for info in await manager.queues() if filters.queue in (None, info.name))
        found = 0
        async for _ in manager.inspector.matching(filters):
            found += 1
        return found

    if yes:
        session.run(lambda manager: _known(manager, filters))
    else:
        found = session.run(count)
        if found:
            confirm(session, f"{verb} {found} dead letters?", yes=False)
    with output.busy("going through the dead letters"):
        done = session.change(act)
    if session.json:
        output.document({"count": done})
    else:
        click.echo(f"{done} {word}")
    return Exit.OK if done else Exit.NO
