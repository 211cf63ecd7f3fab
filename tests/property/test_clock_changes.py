"""Every change of the clocks of a dozen zones in 2026: no run comes twice, none is left out.

The model beside it knows neither croniter nor offsets: it has walked through real time minute by minute and written down
what the clock on the wall showed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs.words.cron import Cron

ZONES = (
    "Europe/Berlin", "Europe/London", "America/New_York", "America/Los_Angeles", "America/St_Johns", "America/Santiago",
    "America/Havana", "Africa/Cairo", "Africa/Casablanca", "Asia/Beirut", "Australia/Sydney", "Australia/Lord_Howe",
    "Pacific/Chatham", "Antarctica/Troll", "America/Nuuk",
)  # fmt: skip
YEAR = 2026
MINUTE = timedelta(minutes=1)
AROUND = 30 * 60
"""Minutes before and after a change that are looked at."""


@dataclass(frozen=True)
class Change:
    zone: str
    at: datetime

    def __str__(self) -> str:
        return f"{self.zone} {self.at:%m-%d %H:%M}Z"


def changes() -> list[Change]:
    found = []
    for name in ZONES:
        info = ZoneInfo(name)
        moment = datetime(YEAR, 1, 1, tzinfo=UTC)
        while moment.year == YEAR:
            following = moment + timedelta(minutes=15)
            if moment.astimezone(info).utcoffset() != following.astimezone(info).utcoffset():
                found.append(Change(name, following))
            moment = following
    return found


CHANGES = changes()


@cache
def shown(change: Change) -> list[tuple[datetime, datetime]]:
    """Each real minute around the change, and what the clock on the wall shows in it."""
    info = ZoneInfo(change.zone)
    minutes = [change.at + n * MINUTE for n in range(-AROUND, AROUND)]
    return [(minute, minute.astimezone(info).replace(tzinfo=None)) for minute in minutes]


@cache
def skipped(change: Change) -> list[tuple[datetime, datetime, datetime]]:
    """Each local minute that the change skips: when it would have come by the old clock, itself, and the change."""
    found = []
    for (before, last), (after, first) in pairwise(shown(change)):
        late = 1
        while last + late * MINUTE < first:
            found.append((before + late * MINUTE, last + late * MINUTE, after))
            late += 1
    return found


@dataclass(frozen=True)
class Wanted:
    """What an expression asks for, as sets."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None = None
    weekdays: frozenset[int] | None = None
    interval: bool = False

    def fits(self, local: datetime) -> bool:
        return local.minute in self.minutes and local.hour in self.hours and self._fits_day(local)

    def _fits_day(self, local: date) -> bool:
        by_day = self.days is not None and local.day in self.days
        by_weekday = self.weekdays is not None and local.isoweekday() % 7 in self.weekdays
        return by_day or by_weekday or (self.days is None and self.weekdays is None)

    def runs(self, change: Change) -> list[datetime]:
        """When it should run around the change."""
        found: set[datetime] = set()
        seen: set[datetime] = set()
        for minute, local in shown(change):
            if self.fits(local) and (self.interval or local not in seen):
                found.add(minute)
            seen.add(local)
        for by_old_clock, local, changed in skipped(change):
            if self.fits(local):
                found.add(by_old_clock if self.interval else changed)
        return sorted(found)


def runs_of(cron: Cron, change: Change) -> list[datetime]:
    first, last = shown(change)[0][0], shown(change)[-1][0]
    at = int(first.timestamp() * 1000) - 1
    found: list[datetime] = []
    while True:
        following = cron.after(at)
        assert following is not None
        assert following > at
        moment = datetime.fromtimestamp(following / 1000, UTC)
        if moment > last:
            return found
        found.append(moment)
        at = following


def test_the_zones_change_their_clocks() -> None:
    assert {change.zone for change in CHANGES} == set(ZONES)
    assert len(CHANGES) >= 2 * len(ZONES)
    assert any(skipped(change) for change in CHANGES)
    lengths = {len(skipped(change)) for change in CHANGES}
    assert {30, 60, 120} <= lengths


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_minute_of_the_night_runs_once(change: Change) -> None:
    near = {local for minute, local in shown(change) if abs(minute - change.at) <= timedelta(hours=3)}
    near |= {local for _, local, _ in skipped(change)}
    for local in near:
        cron = Cron(f"{local.minute} {local.hour} * * *", change.zone)
        wanted = Wanted(frozenset({local.minute}), frozenset({local.hour}))
        assert runs_of(cron, change) == wanted.runs(change), local
        runs = runs_of(cron, change)
        assert all(22 * 60 <= (b - a) / MINUTE <= 26 * 60 for a, b in pairwise(runs)), local


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("step", [1, 5, 15, 30])
def test_intervals_go_on_in_real_time(change: Change, step: int) -> None:
    runs = runs_of(Cron(f"*/{step} * * * *", change.zone), change)
    assert {after - before for before, after in pairwise(runs)} == {step * MINUTE}


def _some(low: int, high: int, most: int = 6) -> st.SearchStrategy[frozenset[int]]:
    return st.frozensets(st.integers(low, high), min_size=1, max_size=most)


minutes = st.one_of(
    _some(0, 59).map(lambda v: (",".join(map(str, sorted(v))), v)),
    st.integers(1, 59).map(lambda n: (f"*/{n}", frozenset(range(0, 60, n)))),
    st.just(("*", frozenset(range(60)))),
    st.tuples(st.integers(0, 30), st.integers(31, 59)).map(
        lambda r: (f"{r[0]}-{r[1]}", frozenset(range(r[0], r[1] + 1)))
    ),
)
hours = st.one_of(
    _some(0, 23).map(lambda v: (",".join(map(str, sorted(v))), v)),
    st.integers(1, 23).map(lambda n: (f"*/{n}", frozenset(range(0, 24, n)))),
    st.just(("*", frozenset(range(24)))),
    st.tuples(st.integers(0, 2), st.integers(3, 7)).map(lambda r: (f"{r[0]}-{r[1]}", frozenset(range(r[0], r[1] + 1)))),
)
days = st.one_of(st.just(None), _some(1, 31, 20))
weekdays = st.one_of(st.just(None), _some(0, 6))


@given(st.sampled_from(CHANGES), minutes, hours, days, weekdays)
def test_any_expression_runs_as_the_model_says(
    change: Change,
    minute: tuple[str, frozenset[int]],
    hour: tuple[str, frozenset[int]],
    day: frozenset[int] | None,
    weekday: frozenset[int] | None,
) -> None:
    day_text = "*" if day is None else ",".join(map(str, sorted(day)))
    weekday_text = "*" if weekday is None else ",".join(map(str, sorted(weekday)))
    expression = f"{minute[0]} {hour[0]} {day_text} * {weekday_text}"
    if weekday is not None and len(weekday) == 7:
        weekday = None if day is None else weekday
    interval = "*" in minute[0] or len(hour[1]) == 24
    wanted = Wanted(minute[1], hour[1], day, weekday, interval)
    assert runs_of(Cron(expression, change.zone), change) == wanted.runs(change)


@given(
    st.sampled_from(CHANGES),
    st.integers(-AROUND * 60, AROUND * 60),
    st.sampled_from(["7 3 * * *", "*/7 * * * *", "0 0 * * 0"]),
)
def test_the_next_run_does_not_depend_on_when_one_asks(change: Change, seconds: int, expression: str) -> None:
    cron = Cron(expression, change.zone)
    moment = int((change.at + timedelta(seconds=seconds)).timestamp() * 1000)
    following = cron.after(moment)
    assert following is not None
    assert cron.after(following - 1) == following
    assert cron.after((moment + following) // 2) == following


def test_seconds_follow_the_same_rule() -> None:
    cron = Cron("30 2 * * * 15,45", "Europe/Berlin")
    at = int(datetime(2026, 10, 24, 12, tzinfo=UTC).timestamp() * 1000)
    times = []
    for _ in range(4):
        at = cron.after(at) or 0
        times.append(f"{datetime.fromtimestamp(at / 1000, UTC):%d %H:%M:%S}")
    assert times == ["25 00:30:15", "25 00:30:45", "26 01:30:15", "26 01:30:45"]
