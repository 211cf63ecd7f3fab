"""``rf-jobs top``: what goes on, live."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click
import msgspec

from rf_jobs.cli import live, output, shapes
from rf_jobs.cli.looking import RATED, Look, Looker
from rf_jobs.cli.options import common, duration
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import NOTHING, ago, class_name, number
from rf_jobs.cli.wording import duration as lasting
from rf_jobs.client.manager import QueueManager
from rf_jobs.core.records import JobRecord, QueueInfo, WorkerInfo
from rf_jobs.words.config import mask_url
from rf_jobs.words.errors import BackendError, InvalidOption
from rf_jobs.words.printing import clean

STATES = ("ready", "scheduled", "blocked", "parked", "running", "dead")
FAILED = ("retried", "dead")
SHORTEST_SECONDS = 0.1
FEW = 3
"""Rows that a table has at least, if it has so many."""


@click.command
@click.option("--once", is_flag=True, help="Show one page, and end.")
@click.option(
    "--interval", type=duration, default="1", show_default=True, metavar="DURATION", help="From one look to the next."
)
@common()
def top(session: Session, once: bool, interval: float) -> None:
    """Watch the queues, the workers and the jobs that have run longest; the latest queue comes first.

    Rates are what the ledger counted between two looks: `in` jobs dispatched, `done` jobs completed, `failed` attempts that
    failed or asked for another try. At a terminal the page is drawn anew until `q` or Ctrl-C; elsewhere, and with --once, it
    is shown once. With --json it is an object a line, a line for each look. `q`, Ctrl-C and SIGTERM end it with exit code 0.
    """
    if interval < SHORTEST_SECONDS:
        raise InvalidOption(f"--interval is {interval:g} s; give {SHORTEST_SECONDS:g} s or more")
    title = f"rf-jobs top: {session.settings.jobs.namespace} on {mask_url(session.settings.jobs.redis_url)}"
    if once or not (session.json or live.is_terminal()):
        look = session.run(lambda manager: _two_looks(manager, interval))
        if session.json:
            output.document(_shape(look))
        else:
            _print(title, look)
    elif session.json:
        session.run(lambda manager: _tell(manager, interval))
    else:
        session.run(lambda manager: _draw(manager, interval, title))


# --- looking ---------------------------------------------------------------------------------------------------------


async def _two_looks(manager: QueueManager, interval: float) -> Look:
    looker = Looker(manager)
    await looker.look()
    await asyncio.sleep(interval)
    return await looker.look()


async def _tell(manager: QueueManager, interval: float) -> None:
    """An object a line. The first look is there to compare with."""
    looker, enough = Looker(manager), live.Enough()
    with enough.heard(keys=False):
        await enough.unless(looker.look())
        while not await enough.within(interval):
            look = await enough.unless(looker.look())
            if look is not None:
                click.echo(msgspec.json.encode(_shape(look)).decode())


async def _draw(manager: QueueManager, interval: float, title: str) -> None:
    """A server that goes away is waited for: what was seen last stays, with a line that says so."""
    looker, enough = Looker(manager), live.Enough()
    look: Look | None = await looker.look()
    trouble = ""
    with enough.heard(keys=True), live.screen():
        while look is not None:
            live.draw(_page(title, look, trouble, live.height()))
            if await enough.within(interval):
                return
            try:
                look, trouble = await enough.unless(looker.look()), ""
            except BackendError as error:
                trouble = clean(str(error))


# --- for people ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """A table of the page."""

    columns: Sequence[str]
    right: Sequence[str]
    rows: list[list[str]]

    def lines(self, room: int) -> list[str]:
        """An empty line, the head and as many rows as fit, the last of them saying what did not."""
        shown = self.rows if len(self.rows) <= room else self.rows[: max(room - 1, 0)]
        head, *rows = output.table_lines(
            self.columns, [[clean(cell) for cell in row] for row in shown], right=self.right
        )
        more = [f"... and {number(len(self.rows) - len(shown))} more"] if len(shown) < len(self.rows) else []
        return ["", click.style(head, bold=True), *rows, *more]


def _parts(look: Look) -> list[_Part]:
    rates = ("in/s", "done/s", "failed/s")
    queues = _Part(
        ["queue", *STATES, "oldest ready", *rates, ""], (*STATES, "oldest ready", *rates),
        [_queue_row(queue, look) for queue in look.queues],
    )  # fmt: skip
    workers = _Part(
        ["worker", "process", "state", "busy", "used", "queues", "last beat"], ("busy", "used"),
        [_worker_row(worker) for worker in look.workers],
    )  # fmt: skip
    running = _Part(
        ["longest running", "class", "queue", "attempt", "for", "worker"], ("attempt", "for"),
        [_running_row(record, look) for record in look.running],
    )  # fmt: skip
    return [part for part in (queues, workers, running) if part.rows]


def _page(title: str, look: Look, trouble: str, height: int) -> list[str]:
    """As much of it as fits into so many lines: where that is little, the last tables are left out."""
    lines = _heads(title, look, click.style(f"no answer: {trouble}", fg="red") if trouble else "q ends it")
    parts = _parts(look)
    while len(parts) > 1 and _room(parts, height - len(lines)) < sum(min(len(part.rows), FEW) for part in parts):
        del parts[-1]
    given = live.shares([len(part.rows) for part in parts], _room(parts, height - len(lines))) if parts else []
    for part, rows in zip(parts, given, strict=True):
        lines += part.lines(rows)
    return lines


def _room(parts: Sequence[_Part], lines: int) -> int:
    """Rows that fit into so many lines: each table has an empty line and a head."""
    return lines - 2 * len(parts)


def _heads(title: str, look: Look, note: str = "") -> list[str]:
    counts = ", ".join(f"{number(look.total(name))} {name}" for name in STATES)
    rates = f"in {_rate(look.rate('dispatched'))}/s, done {_rate(look.rate('completed'))}/s, failed {_rate(look.rate(*FAILED))}/s"
    workers = (
        f"{number(look.busy)} of {number(look.slots)} slots busy, {look.utilization:.0%} used"
        if look.workers
        else "none is alive; start one: rf-jobs worker MODULE"
    )
    return [
        f"{click.style(clean(title), bold=True)}, {look.at.astimezone():%H:%M:%S}{', ' if note else ''}{note}",
        f"{number(len(look.queues))} queues: {counts}; {rates}",
        f"{number(len(look.workers))} workers: {workers}",
    ]


def _print(title: str, look: Look) -> None:
    """All of it, once."""
    for line in _heads(title, look):
        click.echo(line)
    for part in _parts(look):
        click.echo()
        output.table(part.columns, part.rows, right=part.right)


def _queue_row(queue: QueueInfo, look: Look) -> list[str]:
    notes = [
        *(["paused"] if queue.paused else []),
        *([f"ledger is off by {queue.imbalance}"] if queue.imbalance else []),
    ]
    age = lasting(queue.oldest_ready_seconds) if queue.counts["ready"] else NOTHING
    rates = [look.rate(*events, queue=queue.name) for events in (("dispatched",), ("completed",), FAILED)]
    return [
        queue.name,
        *(number(queue.counts[state]) for state in STATES),
        age,
        *(_rate(rate) for rate in rates),
        ", ".join(notes),
    ]


def _worker_row(worker: WorkerInfo) -> list[str]:
    return [
        worker.id, f"{worker.host}:{worker.pid}", worker.state, f"{worker.busy}/{worker.slots}", f"{worker.utilization:.0%}",
        ",".join(worker.queues), ago(worker.last_beat),
    ]  # fmt: skip


def _running_row(record: JobRecord, look: Look) -> list[str]:
    return [
        str(record.id), class_name(record.job_class), record.queue, str(record.attempt), lasting(_running_for(record, look)),
        record.worker,
    ]  # fmt: skip


def _running_for(record: JobRecord, look: Look) -> float | None:
    """Both by the server's clock; a job that started after the survey has run for no time."""
    return None if record.started_at is None else max(0.0, (look.at - record.started_at).total_seconds())


def _rate(rate: float | None) -> str:
    """``0``, ``0.4``, ``1,234``."""
    if rate is None:
        return NOTHING
    return f"{rate:.1f}" if 0 < rate < 100 else number(rate)


# --- for programs ----------------------------------------------------------------------------------------------------


def _shape(look: Look) -> dict[str, Any]:
    return {
        "at": shapes.time(look.at),
        "seconds": look.seconds,
        "per_second": _rates_shape(look),
        "queues": [_queue_shape(queue, look) for queue in look.queues],
        "slots": look.slots,
        "busy": look.busy,
        "utilization": look.utilization,
        "workers": [shapes.worker(worker) for worker in look.workers],
        "longest_running": [
            {**shapes.job(record), "running_seconds": _running_for(record, look)} for record in look.running
        ],
    }


def _queue_shape(queue: QueueInfo, look: Look) -> dict[str, Any]:
    shape = {**shapes.queue(queue), "per_second": _rates_shape(look, queue.name)}
    del shape["parked_classes"]  # they are not looked for here; rf-jobs queues does
    return shape


def _rates_shape(look: Look, queue: str | None = None) -> dict[str, float | None]:
    """None each where two looks can't be compared."""
    return {event: look.rate(event, queue=queue) for event in RATED}
