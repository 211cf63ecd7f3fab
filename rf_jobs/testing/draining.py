"""``drain``: runs what waits on a real server, by real workers in this process, until nothing is left to do."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from rf_jobs.client.manager import QueueManager
from rf_jobs.client.queue import standing_in
from rf_jobs.core import transitions
from rf_jobs.model.events import (
    AttemptEnded,
    AttemptLost,
    FailedAttempt,
    JobCompleted,
    JobCrashed,
    JobDied,
    JobDiscarded,
    JobExpired,
    JobParked,
    JobReclaimed,
    JobReleased,
    JobRetried,
    JobsFetched,
    JobSnoozed,
)
from rf_jobs.store import limit_calls
from rf_jobs.store.calls import Call
from rf_jobs.store.shapes import QueueSurvey
from rf_jobs.testing.clock import Clock, clock_in_use
from rf_jobs.words.errors import ExecutionFailed, InvalidOption, WorkerError
from rf_jobs.words.ids import queue_name
from rf_jobs.words.states import State
from rf_jobs.words.timing import Duration, from_ms, millis, seconds
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool

POLL_SECONDS = 0.05
"""How soon the private worker looks again at a queue that seemed empty; it is woken before by whatever is dispatched."""
A_YEAR = 366 * 86_400
_COUNTED: dict[type[AttemptEnded], str] = {
    JobCompleted: "completed",
    JobRetried: "retried",
    JobDied: "dead",
    JobDiscarded: "cancelled",
    JobExpired: "expired",
    JobSnoozed: "snoozed",
    JobParked: "parked",
    JobReleased: "released",
    JobCrashed: "crashed",
    AttemptLost: "lost",
}


@dataclass(frozen=True)
class Dead:
    """A job that became a dead letter."""

    id: UUID
    job_class: str
    queue: str
    attempt: int
    error_type: str
    message: str
    traceback: str = field(repr=False)

    def __str__(self) -> str:
        return (
            f"{self.job_class} {self.id} on {self.queue!r}, attempt {self.attempt}: {self.error_type}: {self.message}"
        )


@dataclass
class Drained:
    """What a ``drain`` did: how often an attempt ended so."""

    completed: int = 0
    retried: int = 0
    snoozed: int = 0
    dead: int = 0
    cancelled: int = 0
    expired: int = 0
    parked: int = 0
    released: int = 0
    crashed: int = 0
    lost: int = 0
    reclaimed: int = 0
    """Jobs taken back from workers whose lease had run out; they ran again unless they are dead."""
    died: list[Dead] = field(default_factory=list)
    """The dead letters, in the order of their death."""
    left: dict[str, dict[str, int]] = field(default_factory=dict)
    """What still waits, by queue and state: scheduled for later, paused, parked, blocked."""

    @property
    def attempts(self) -> int:
        """Attempts that ended in all."""
        return sum(getattr(self, name) for name in _COUNTED.values())


async def drain(
    manager: QueueManager,
    *,
    queues: Sequence[str] | None = None,
    with_scheduled: bool = False,
    until: Duration | datetime = A_YEAR,
    clock: Clock | None = None,
    raise_errors: bool = True,
    limit: int = 10_000,
    concurrency: int = 10,
    timeout: Duration = 60,
) -> Drained:
    """Run everything that is due, and what it dispatches, until nothing is; answers with what happened.

    A ``WorkerPool`` serves ``queues`` (default: all, also those that jobs dispatch to meanwhile), ``concurrency`` jobs at a
    time, and ``Queue`` uses ``manager`` meanwhile. ``with_scheduled``: delayed jobs, retries and snoozes are run too, each
    at its time, by moving ``clock`` forward (default: the one in use, else one that ends with the drain), not beyond
    ``until`` (a time, or so long from now).

    Raises ``ExecutionFailed`` if a job died, unless ``raise_errors`` is off; ``WorkerError`` after ``limit`` attempts, or
    when ``timeout`` real seconds have passed.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise InvalidOption(f"limit is {limit!r}; give a whole number of attempts from 1")
    patience = seconds(timeout, "timeout")
    names = None if queues is None else tuple(queue_name(name) for name in queues)
    with ExitStack() as stack:
        stack.enter_context(standing_in(manager))
        if with_scheduled and clock is None:
            place = manager.settings.jobs.redis_url, manager.settings.jobs.namespace
            clock = clock_in_use(place) or stack.enter_context(Clock(manager))
        run = _Drain(manager, names, limit, concurrency)
        try:
            async with asyncio.timeout(patience):
                await run.everything(clock if with_scheduled else None, until)
            run.summary.left = await run.look()
        except TimeoutError:
            left = await run.look()
            raise WorkerError(f"drain: not done after {patience:g} s; still there: {left or 'nothing'}") from None
        finally:
            await run.aclose()
    if run.summary.died and raise_errors:
        raise _failure(run.summary.died)
    return run.summary


class _Drain:
    """One call of ``drain``. It trusts the server alone to say that nothing is left: events only say when to ask."""

    def __init__(self, manager: QueueManager, queues: tuple[str, ...] | None, limit: int, concurrency: int) -> None:
        self.summary = Drained()
        self._manager = manager
        self._queues = queues
        self._limit = limit
        self._config = WorkerConfig(
            manager.settings.worker, workers=1, max_concurrent_jobs=concurrency, processes=1, sleep=POLL_SECONDS
        )
        self._pools: list[WorkerPool] = []
        self._served: set[str] = set()
        self._now_ms = 0
        self._timer_ms: float | None = None
        self._news = asyncio.Event()
        bus = manager.bus
        self._subscriptions: list[Callable[[], None]] = [
            bus.subscribe(AttemptEnded, self._ended),
            bus.subscribe(JobReclaimed, self._reclaimed),
            bus.subscribe(JobsFetched, lambda _: self._news.set()),
        ]

    def _ended(self, event: AttemptEnded) -> None:
        name = _COUNTED.get(type(event))
        if name is not None:
            setattr(self.summary, name, getattr(self.summary, name) + 1)
        if isinstance(event, JobDied):
            self.summary.died.append(_dead(event))
        self._news.set()

    def _reclaimed(self, event: JobReclaimed) -> None:
        self.summary.reclaimed += 1
        if event.state == State.DEAD:
            why = "the lease ran out for the last time that max_crashes allows"
            self.summary.dead += 1
            self.summary.died.append(
                Dead(UUID(event.job_id), event.job_class, event.queue, event.attempt, "WorkerLost", why, "")
            )
        self._news.set()

    async def everything(self, clock: Clock | None, until: Duration | datetime) -> None:
        """Run what is due; with a clock, go on to the time of the next that is not, until there is none."""
        horizon = None
        while True:
            await self._due()
            if clock is None:
                return
            if horizon is None:
                horizon = until if isinstance(until, datetime) else from_ms(_ms(clock.now()) + millis(until, "until"))
            at = self._next(await self._rows())
            if at is None or at > horizon:
                return
            if at > clock.now():  # else it came due since the look
                clock.travel_to(at)

    def _next(self, rows: Sequence[QueueSurvey]) -> datetime | None:
        """When the next job comes due, or a limit lets go of one."""
        times: list[float] = [row.next_due_ms for row in rows if row.next_due_ms is not None and not row.paused]
        if self._timer_ms is not None and any(row.cards["blocked"] for row in rows):
            times.append(self._timer_ms)
        return from_ms(math.ceil(min(times))) if times else None

    async def _due(self) -> None:
        """Run until nothing is due."""
        await self._take_back()
        while True:
            self._news.clear()
            if self.summary.attempts > self._limit:
                raise WorkerError(
                    f"drain: {self.summary.attempts} attempts ended, limit is {self._limit}, and more jobs are there; do they"
                    f" dispatch each other for ever? Left: {await self.look()}"
                )
            rows = await self._rows()
            if not self._busy(rows):
                await self._manager.lifecycle.settle()  # an end may have consequences that are not done yet
                rows = await self._rows()
                if not self._busy(rows):
                    return
            await self._serve([row.name for row in rows])
            await self._news.wait()

    async def _serve(self, names: Sequence[str]) -> None:
        """Have each queue served. A pool serves those that it was started with; queues that are new get another."""
        new = [name for name in names if name not in self._served]
        if new:
            self._served.update(new)
            pool = WorkerPool(self._config.queues(new), self._manager)
            self._pools.append(pool)
            await pool.start()

    async def aclose(self) -> None:
        """Stop the workers, and listen no more."""
        for pool in self._pools:
            await pool.shutdown(0)  # what still runs, since the time is up, is handed back
        for end in self._subscriptions:
            end()

    async def _take_back(self) -> None:
        manager = self._manager
        names = [row.name for row in await self._rows()]
        if names:
            await manager.lifecycle.apply(
                transitions.reclaim(
                    manager.store.commands, 1000, self._config.settings.max_crashes, manager.retention, names
                )
            )

    async def _rows(self) -> list[QueueSurvey]:
        store = self._manager.store
        commands = store.commands
        calls: list[Call[Any]] = [commands.survey(), limit_calls.next_timer(commands), commands.unsettled()]
        survey, self._timer_ms, self._unsettled = await store.run_many(calls)
        self._now_ms = survey.now_ms
        return [row for row in survey.queues if self._queues is None or row.name in self._queues]

    def _busy(self, rows: Sequence[QueueSurvey]) -> bool:
        """Whether anything runs or could."""
        return self._unsettled > 0 or any(
            (row.cards["blocked"] and self._timer_ms is not None and self._timer_ms <= self._now_ms)
            or row.cards["running"]
            or (not row.paused and (row.cards["ready"] or (row.next_due_ms or self._now_ms + 1) <= self._now_ms))
            for row in rows
        )

    async def look(self) -> dict[str, dict[str, int]]:
        """What is there that has not ended, by queue and state."""
        found = {}
        for row in await self._rows():
            states = {state: n for state, n in row.cards.items() if n and not State(state).is_final}
            if states:
                found[row.name] = states
        return found


def _dead(event: FailedAttempt) -> Dead:
    return Dead(
        UUID(event.job_id),
        event.job_class,
        event.queue,
        event.attempt,
        event.error_type,
        event.message,
        event.traceback,
    )


def _failure(died: Sequence[Dead]) -> ExecutionFailed:
    """The first death, and what else died."""
    first = died[0]
    others = "".join(f"\n  {other}" for other in died[1:])
    also = f"; {len(died) - 1} more died:{others}" if others else ""
    error = ExecutionFailed(
        f"a job died while draining: {first}{also}", error_type=first.error_type, traceback=first.traceback
    )
    if first.traceback:
        error.add_note(first.traceback)
    return error


def _ms(at: datetime) -> int:
    return round(at.timestamp() * 1000)
