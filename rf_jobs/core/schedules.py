"""Schedules: the transitions that change them, and what the read model says of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from rf_jobs.core.records import moment
from rf_jobs.core.transitions import Dispatching, Transition
from rf_jobs.model.events import (
    Event,
    JobDeduplicated,
    ScheduleAdded,
    ScheduleChanged,
    ScheduleFailed,
    ScheduleMissed,
    ScheduleOrphaned,
    ScheduleOverlapped,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    ScheduleTaken,
    ScheduleTicked,
    ScheduleTriggered,
)
from rf_jobs.model.schedule import Definition, decode
from rf_jobs.store.redis import AsyncStore
from rf_jobs.store.schedule_calls import Due, Put, ScheduleCalls, Tick
from rf_jobs.words.errors import SchedulerError, UnknownSchedule
from rf_jobs.words.recurrence import Misfire

PAGE = 200


def put(calls: ScheduleCalls, source: str, scheduler: str, schedules: Sequence[Put]) -> Transition[list[int]]:
    """Add schedules, or change them; the reply says which: 0 same, 1 added, 2 changed, -1 refused."""

    def announce(replies: list[int]) -> Iterable[Event]:
        for one, reply in zip(schedules, replies, strict=True):
            if reply == 1:
                yield ScheduleAdded(one.name, source)
            elif reply == 2:
                yield ScheduleChanged(one.name, source)

    return Transition(calls.put(source, scheduler, schedules), announce)


async def move_away(
    store: AsyncStore, calls: ScheduleCalls, source: str, schedules: Sequence[Put], replies: Sequence[int]
) -> None:
    """Schedules that were put are where their jobs are by now: forget them where they were before. Raises ``BackendError``."""
    taken = [one for one, reply in zip(schedules, replies, strict=True) if reply >= 0]
    if moved := calls.moved(source, taken):
        await store.run_many(moved)


class Firing(NamedTuple):
    """A tick, and its job where one is to run."""

    tick: Tick
    job: Dispatching | None


def fire(calls: ScheduleCalls, scheduler: str, firings: Sequence[Firing]) -> Transition[list[tuple[str, str]]]:
    """Dispatch the jobs of due ticks and move their schedules on; the reply has a code and a detail for each, see
    schedule_fire.lua."""

    def announce(replies: list[tuple[str, str]]) -> Iterable[Event]:
        for firing, (code, detail) in zip(firings, replies, strict=True):
            yield from _fired(firing, code, detail)

    return Transition(calls.fire(scheduler, [firing.tick for firing in firings]), announce)


def _fired(firing: Firing, code: str, detail: str) -> Iterable[Event]:
    tick, job = firing
    if code == "taken" and tick.expected is not None:
        yield ScheduleTaken(tick.name, tick.expected)
    elif code == "orphaned":
        yield ScheduleOrphaned(tick.name)
    if code not in ("fired", "moved", "refused"):
        return
    if tick.missed:
        yield ScheduleMissed(tick.name, tick.missed)
    if tick.error and tick.expected is not None:
        yield ScheduleFailed(tick.name, tick.expected, tick.error)
    if job is None:
        return
    if code == "refused":
        if detail == "unique":
            yield JobDeduplicated(job.event.job_id, job.event.queue, job.event.job_class)
            yield ScheduleOverlapped(tick.name, tick.run or 0)
        else:
            yield ScheduleFailed(tick.name, tick.run or 0, f"the dispatch was refused: {detail}")
        return
    yield job.event
    if tick.expected is None:
        yield ScheduleTriggered(tick.name, job.event.job_id)
    else:
        event = job.event
        yield ScheduleTicked(
            tick.name, tick.run or 0, event.job_id, event.queue, event.job_class, int(detail) / 1000, event.traceparent
        )


def trouble(calls: ScheduleCalls, due: Due, error: str) -> Transition[bool]:
    """A due schedule cannot be run here."""
    return Transition(
        calls.trouble(due.name, due.revision, due.tick, error, due.shard),
        lambda kept: [ScheduleFailed(due.name, due.tick, error)] if kept else [],
    )


def pause(calls: ScheduleCalls, name: str) -> Transition[int]:
    """Let a schedule rest."""
    return Transition(calls.pause(name), lambda done: [SchedulePaused(name)] if done == 1 else [])


def resume(calls: ScheduleCalls, name: str, revision: str, tick: int | None, due: int | None) -> Transition[int]:
    """Let it go on with this tick."""
    return Transition(
        calls.resume(name, revision, tick, due), lambda done: [ScheduleResumed(name)] if done == 1 else []
    )


def drop(calls: ScheduleCalls, name: str) -> Transition[int]:
    """Remove it."""
    return Transition(calls.drop(name), lambda done: [ScheduleRemoved(name)] if done == 1 else [])


# --- the read model ---------------------------------------------------------------------------------------------------


class ScheduleState(StrEnum):
    """What a schedule does."""

    ACTIVE = "active"
    PAUSED = "paused"
    ORPHANED = "orphaned"
    """The code that had it is gone: it does not run."""
    ENDED = "ended"
    """It has no tick any more."""
    DAMAGED = "damaged"
    """Its definition cannot be read."""


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule and how it fares."""

    name: str
    state: ScheduleState
    source: str
    """``code``: a scheduler's static one; ``api``: it was added at run time."""
    when: str
    """A cron expression with its zone, or an interval, for people."""
    cron: str
    timezone: str
    every: float
    """Seconds; 0 where it goes by cron."""
    jitter: float
    misfire: str
    grace: float
    start: datetime | None
    until: datetime | None
    job_class: str
    queue: str
    """Empty: as the class says."""
    next_run: datetime | None
    """When it is due; None: paused, orphaned, or at its end."""
    last_run: datetime | None
    last_tick: datetime | None
    """The time for which the last run was due, without its jitter."""
    last_job: UUID | None
    last_success: datetime | None
    """When a job of it last completed."""
    last_outcome: str
    """The final state of the job that ended last; empty: none has yet."""
    last_end: datetime | None
    lag: float
    """How late the last run was, in seconds."""
    fired: int
    missed: int
    """Ticks that were passed over, or could not be dispatched."""
    last_missed: datetime | None
    overlaps: int
    """Ticks whose job was not dispatched, since an equal one that is unique was there still."""
    error: str
    """Why the last tick could not be dispatched; empty: it could."""
    created_at: datetime | None
    changed_at: datetime | None
    declared_at: datetime | None
    """When a scheduler last had it in its code."""
    revision: str


def schedule_info(name: str, facts: dict[str, str]) -> ScheduleInfo:
    """From what lies in the store, whatever that is."""
    try:
        definition, error = decode(facts.get("def", "").encode()), facts.get("error", "")
    except SchedulerError as damage:
        definition, error = Definition(job="", misfire=Misfire.ONCE), str(damage)
    state = _state(facts, definition)
    return ScheduleInfo(
        name=name,
        state=state,
        source=facts.get("source", ""),
        when=definition.when if definition.job else "",
        cron=definition.cron,
        timezone=definition.tz if definition.cron else "",
        every=definition.every / 1000,
        jitter=definition.jitter / 1000,
        misfire=definition.misfire,
        grace=definition.grace / 1000,
        start=moment(str(definition.start)) if definition.start else None,
        until=moment(str(definition.until)) if definition.until else None,
        job_class=definition.job,
        queue=definition.queue,
        next_run=moment(facts.get("due")) if state is ScheduleState.ACTIVE else None,
        last_run=moment(facts.get("ran")),
        last_tick=moment(facts.get("tick")),
        last_job=_uuid(facts.get("job", "")),
        last_success=moment(facts.get("succeeded")),
        last_outcome=facts.get("outcome", ""),
        last_end=moment(facts.get("ended")),
        lag=_number(facts.get("lag")) / 1000,
        fired=int(_number(facts.get("fired"))),
        missed=int(_number(facts.get("missed"))),
        last_missed=moment(facts.get("missed_at")),
        overlaps=int(_number(facts.get("overlaps"))),
        error=error,
        created_at=moment(facts.get("created")),
        changed_at=moment(facts.get("changed")),
        declared_at=moment(facts.get("seen")) if facts.get("source") == "code" else None,
        revision=facts.get("rev", ""),
    )


def _state(facts: dict[str, str], definition: Definition) -> ScheduleState:
    if not definition.job:
        return ScheduleState.DAMAGED
    if "orphaned" in facts:
        return ScheduleState.ORPHANED
    if "paused" in facts:
        return ScheduleState.PAUSED
    return ScheduleState.ACTIVE if facts.get("next") else ScheduleState.ENDED


def _number(value: str | None) -> float:
    try:
        return float(value or 0)
    except ValueError:
        return 0.0


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


class ScheduleReader:
    """Reads schedules from a store."""

    def __init__(self, store: AsyncStore, calls: ScheduleCalls) -> None:
        self._store = store
        self._calls = calls

    async def count(self) -> int:
        """How many there are."""
        return await self._store.run(self._calls.count())

    async def schedulers(self) -> int:
        """How many schedulers live."""
        return (await self._store.run(self._calls.survey(0))).schedulers

    async def page(self, offset: int, limit: int) -> list[ScheduleInfo]:
        """A page, by their next run."""
        found: list[ScheduleInfo] = []
        for at in range(offset, offset + limit, PAGE):
            names = await self._store.run(self._calls.names(at, min(PAGE, offset + limit - at)))
            if not names:
                break
            facts = await self._store.run_many([self._calls.facts(name) for name in names])
            found += [schedule_info(name, fact) for name, fact in zip(names, facts, strict=True) if fact]
        return found

    async def one(self, name: str) -> ScheduleInfo:
        """One. Raises ``UnknownSchedule`` that names the nearest."""
        facts = await self._store.run(self._calls.facts(name))
        if not facts:
            raise await self.unknown(name)
        return schedule_info(name, facts)

    async def definition(self, name: str) -> tuple[str, Definition]:
        """Its revision and its definition. Raises ``UnknownSchedule`` or ``SchedulerError``."""
        found, data = await self._store.run(self._calls.definition(name))
        if not found:
            raise await self.unknown(name)
        return found, decode(data)

    async def unknown(self, name: str) -> UnknownSchedule:
        """The error that says so."""
        names = await self._store.run(self._calls.names(0, 1000))
        near = _near(name, names)
        known = f"did you mean {near}?" if near else f"known are {', '.join(sorted(names)[:20]) or 'none'}"
        return UnknownSchedule(f"there is no schedule {name!r}; {known}")


def _near(name: str, names: list[str]) -> str:
    return " or ".join(difflib.get_close_matches(name, names, 2))
