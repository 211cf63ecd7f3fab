"""When a schedule runs: its ticks, and what becomes of those that nobody ran in time. Pure: time is an argument.

A *tick* is a time at which the schedule asks for a run, in milliseconds since 1970. It is *due* then, or a little later
where there is jitter, which is the same for every scheduler since it follows from the schedule's name and the tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b
from uuid import UUID, uuid5

from rf_jobs.words.cron import Cron, cron
from rf_jobs.words.errors import SchedulerError
from rf_jobs.words.timing import Duration, millis

SHORTEST_MS = 100
"""What an interval may be at least: faster than that a queue is the wrong tool."""
LONGEST_JITTER_MS = 86_400_000
COUNTED = 1000
"""So many missed ticks are counted one by one; what lies beyond is passed over."""
_TICKS = UUID("6f0b7c1e-6a2f-5d0c-9a55-5b1f0e3f7a10")
"""The name space of the ids of ticks' jobs."""


class Misfire(StrEnum):
    """What becomes of ticks that are more than the grace late: schedulers were down, or the server was."""

    SKIP = "skip"
    """Nothing: the next that is on time runs."""
    ONCE = "once"
    """One run makes up for all of them."""
    ALL = "all"
    """Each of them runs."""

    @classmethod
    def of(cls, value: Misfire | str) -> Misfire:
        """From its name. Raises ``SchedulerError``."""
        try:
            return cls(value)
        except ValueError:
            raise SchedulerError(f"misfire is {value!r}; it must be one of {', '.join(cls)}") from None


@dataclass(frozen=True, slots=True)
class Every:
    """A fixed interval in real time, counted from ``anchor_ms`` (1970, or the schedule's start)."""

    interval_ms: int
    anchor_ms: int = 0

    @classmethod
    def of(cls, interval: Duration, anchor_ms: int = 0) -> Every:
        """Raises ``InvalidOption`` or ``SchedulerError``."""
        ms = millis(interval, "every")
        if ms < SHORTEST_MS:
            raise SchedulerError(f"every is {interval!r}; an interval is {SHORTEST_MS / 1000:g} seconds or longer")
        return cls(ms, anchor_ms)

    def after(self, ms: int) -> int:
        """The next tick after this time."""
        if ms < self.anchor_ms:
            return self.anchor_ms
        return ms - (ms - self.anchor_ms) % self.interval_ms + self.interval_ms


@dataclass(frozen=True, slots=True)
class Timetable:
    """All ticks of one schedule."""

    name: str
    """The schedule's; jitter follows from it."""
    when: Cron | Every
    start_ms: int = 0
    """No tick before it."""
    until_ms: int = 0
    """No tick after it; 0: it never ends."""
    jitter_ms: int = 0

    def after(self, ms: int) -> int | None:
        """The next tick after this time; None where it was the last."""
        tick = self.when.after(max(ms, self.start_ms - 1))
        return None if tick is None or (self.until_ms and tick > self.until_ms) else tick

    def due(self, tick: int) -> int:
        """When this tick is to run."""
        if not self.jitter_ms:
            return tick
        digest = blake2b(f"{self.name} {tick}".encode(), digest_size=8).digest()
        return tick + int.from_bytes(digest, "big") % (self.jitter_ms + 1)

    def latest(self, since: int, now: int) -> int:
        """The last tick that is due by now; ``since`` is one that is."""
        low, high = since - 1, now
        while low < high:  # due(after(x)) only grows with x, but for jitter, which may show a tick early or late
            middle = (low + high + 1) // 2
            tick = self.after(middle)
            if tick is not None and self.due(tick) <= now:
                low = middle
            else:
                high = middle - 1
        return self.after(low) or since


@dataclass(frozen=True, slots=True)
class Step:
    """What a scheduler does about a schedule whose tick is due."""

    run: int | None
    """The tick to run."""
    next: int | None
    """The tick to wait for then; None: there is none any more."""
    missed: int
    """Ticks that nobody will run."""


def step(table: Timetable, expected: int, now: int, misfire: Misfire, grace_ms: int) -> Step:
    """One step on from the tick ``expected``, which is due."""
    if misfire is Misfire.ALL or now - table.due(expected) <= grace_ms:
        return Step(expected, table.after(expected), 0)
    if misfire is Misfire.ONCE:
        last = table.latest(expected, now)
        return Step(last, table.after(last), _between(table, expected, last))
    missed, tick = 0, expected
    while missed < COUNTED:
        missed += 1
        following = table.after(tick)
        if following is None or now - table.due(following) <= grace_ms:
            return Step(None, following, missed)
        tick = following
    return Step(None, table.after(max(tick, now - grace_ms - 1)), missed)


def _between(table: Timetable, first: int, last: int) -> int:
    """How many ticks there are from the first to before the last, as far as they are counted."""
    count, tick = 0, first
    while tick < last and count < COUNTED:
        count += 1
        following = table.after(tick)
        if following is None:
            break
        tick = following
    return count


def tick_id(schedule: str, tick: int) -> UUID:
    """The id of the job that a tick dispatches: the same whoever does it, so that it can't be dispatched twice."""
    return uuid5(_TICKS, f"{schedule} {tick}")


def timetable(
    name: str, *, expression: str = "", timezone: str = "UTC", interval_ms: int = 0, start_ms: int = 0, until_ms: int = 0,
    jitter_ms: int = 0,
) -> Timetable:  # fmt: skip
    """The ticks of a cron expression or of an interval. Raises ``SchedulerError``."""
    for what, value in (("cron", expression), ("timezone", timezone)):
        if not isinstance(value, str):
            raise SchedulerError(f"{what} of schedule {name!r} is {value!r}; give a text")
    if bool(expression) == bool(interval_ms):
        raise SchedulerError(f"schedule {name!r} needs either a cron expression or an interval (every), and not both")
    if not 0 <= jitter_ms <= LONGEST_JITTER_MS:
        raise SchedulerError(f"jitter of schedule {name!r} is {jitter_ms / 1000:g} s; give 0 to 86400 s")
    if interval_ms and jitter_ms >= interval_ms:
        raise SchedulerError(
            f"jitter of schedule {name!r} is {jitter_ms / 1000:g} s, its interval {interval_ms / 1000:g} s; give less than the interval"
        )
    when = cron(expression, timezone) if expression else Every(interval_ms, start_ms)
    return Timetable(name, when, start_ms, until_ms, jitter_ms)
