"""Cron expressions: five fields or six (seconds last), names, ``@daily`` and the like, each in a time zone of its own.

croniter reads them and finds the next match, among local times alone. What a match means in real time, where clocks are
changed, is decided here, since a run must come neither twice nor not at all:

* An expression for **times of day**: every matching local time is one run. Where clocks go back and it comes twice, the run is
  at the first; where they go forward and it is skipped, the run is at the moment of the change. Several that are skipped
  by one change are one run together, and so is one that matches the time to which clocks jump.
* An expression for **intervals** (its hour field allows every hour, or its minute field has a star) follows real time: it runs
  whenever the clock shows a matching time, each time that it does; and where clocks go forward, what they skip is run
  when it would have come by the old clock, which for changes by whole hours is a run that is there anyway.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

from rf_jobs.words.errors import SchedulerError
from rf_jobs.words.zones import DAY, Zone, zone

if TYPE_CHECKING:
    from croniter import croniter

LONGEST = 200
"""Characters of an expression: nobody writes longer ones by hand."""
ALIASES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
FIELDS = ("minute", "hour", "day of month", "month", "day of week", "second")
_ALLOWED = ("0-59", "0-23", "1-31, L or 15W", "1-12 or JAN-DEC", "0-7 or SUN-SAT, FRI#2 or L5", "0-59")
_SIZES = (60, 24, 31, 12, 7, 60)
_MINUTE, _HOUR = 0, 1
_WORD = re.compile(r"\S+", re.ASCII)
_HASHED = re.compile(r"[hr](\(|/|$)", re.IGNORECASE)
_RANGE = re.compile(r"(\w+)-(\w+)(?:/\d+)?$", re.ASCII)
_STEP = re.compile(r"/(\d+)$", re.ASCII)
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (a local time)
_TRIED_FROM = datetime(2024, 1, 1)  # noqa: DTZ001 (likewise)
_REFUSED = (ValueError, TypeError, LookupError, AttributeError, OverflowError)
"""What croniter raises at what it cannot read. Its own errors are ValueErrors."""


class Cron:
    """An expression in a time zone. Raises ``SchedulerError`` that says where the fault is and what may stand there."""

    __slots__ = ("_last", "_lock", "_matches", "expression", "is_interval", "zone")

    def __init__(self, expression: str, timezone: str = "UTC") -> None:
        self.zone: Zone = zone(timezone)
        self.expression = expression
        words = _words(expression)
        self._matches = _read(expression, words)
        self._lock = Lock()  # croniter keeps its place while it looks
        self._last: tuple[int | None, int | None] = (None, None)
        hours = self._matches.expanded[_HOUR]
        self.is_interval = hours[0] == "*" or "*" in words[_MINUTE][1]
        """Whether it follows real time where clocks are changed, see the module."""

    def after(self, ms: int) -> int | None:
        """The next run after this time, both in milliseconds since 1970; None where there is none any more."""
        moment = ms // 1000
        asked, found = self._last
        if moment != asked:  # schedules that have one expression ask for the same
            try:
                found = self._interval_after(moment) if self.is_interval else self._time_after(moment)
            except (ValueError, OverflowError, OSError):  # beyond what calendars can hold
                found = None
            self._last = (moment, found)
        return None if found is None else found * 1000

    def __repr__(self) -> str:
        return f"Cron({self.expression!r}, {self.zone.name!r})"

    def _match_after(self, wall: int) -> int:
        """The next matching local time."""
        with self._lock:
            found: datetime = self._matches.get_next(datetime, start_time=_EPOCH + timedelta(seconds=wall))
        passed = found - _EPOCH
        return passed.days * DAY + passed.seconds

    def _time_after(self, moment: int) -> int:
        wall = moment + self.zone.offset(moment)
        before, after = self.zone.offsets(wall)
        if before > after and moment >= (change := self.zone.change(wall, before, after)):
            wall = change + before - 1  # the second time round nothing of it counts
        match = self._match_after(wall)
        before, after = self.zone.offsets(match)
        return self.zone.change(match, before, after) if before < after else match - before

    def _interval_after(self, moment: int) -> int:
        return min(found for found in self._showing_after(moment) if found > moment)

    def _showing_after(self, moment: int) -> Iterator[int]:
        """Moments, among them the next one, at which the clock shows a match, or would without the change."""
        zone, offset = self.zone, self.zone.offset(moment)
        wall = moment + offset
        match = self._match_after(wall)
        yield from self._moments(match)
        before, after = zone.offsets(match)
        if before < after:  # it is skipped: something past the change may yet come before it
            yield from self._moments(self._match_after(zone.change(match, before, after) + after - 1))
        before, after = zone.offsets(wall)
        if before > after and offset == before:  # what comes for the second time may be an earlier local time
            yield from self._moments(self._match_after(zone.change(wall, before, after) + after - 1))
        earlier = zone.offset(moment - DAY)
        if earlier < offset:  # perhaps something that was skipped a moment ago is still to come by the old clock
            skipped = self._match_after(moment + earlier)
            before, after = zone.offsets(skipped)
            if before < after:
                yield skipped - before

    def _moments(self, wall: int) -> Iterator[int]:
        """When the clock shows this; where it never does, when it would have by the old clock."""
        before, after = self.zone.offsets(wall)
        yield wall - before
        if before > after:
            yield wall - after


@lru_cache(maxsize=4096)
def cron(expression: str, timezone: str = "UTC") -> Cron:
    """The same expression in the same zone is read once."""
    return Cron(expression, timezone)


def _words(expression: str) -> list[tuple[int, str]]:
    """The fields with their positions, from 1. Raises ``SchedulerError``."""
    if not isinstance(expression, str) or not expression.strip():
        raise SchedulerError(f'cron expression is {expression!r}; give five fields, such as "30 2 * * *"')
    if len(expression) > LONGEST:
        raise SchedulerError(f"cron expression has {len(expression)} characters; at most {LONGEST} are read")
    alias = expression.strip().lower()
    if alias.startswith("@"):
        if alias not in ALIASES:
            near = difflib.get_close_matches(alias, ALIASES, 1) or sorted(ALIASES)
            raise SchedulerError(
                f"cron expression is {expression!r}, which is unknown; did you mean {', '.join(near)}?"
            )
        expression = ALIASES[alias]
    words = [(found.start() + 1, found[0].lower()) for found in _WORD.finditer(expression)]
    if len(words) not in (5, 6):
        raise SchedulerError(
            f"cron expression {expression!r} has {len(words)} fields; give five (minute, hour, day of month, month, day of"
            " week), or six with the second as the last"
        )
    return words


def _croniter() -> type[croniter]:
    from croniter import croniter  # noqa: PLC0415 (with all that it loads, for processes that have schedules)

    return croniter


def _read(expression: str, words: list[tuple[int, str]]) -> croniter:
    for at, (position, word) in enumerate(words):
        start = position
        for part in word.split(","):
            if why := _refusal(at, part):
                raise _fault(expression, at, start, part, why)
            start += len(part) + 1
    text = " ".join(word for _, word in words)
    try:
        matches = _croniter()(text, _TRIED_FROM)
    except _REFUSED as error:
        raise _locate(expression, words, error) from None
    try:
        matches.get_next(datetime)
    except _REFUSED:
        raise SchedulerError(
            f"cron expression {expression!r} never comes: no month has the day that it names; mend its day, month or day of week"
        ) from None
    return matches


def _refusal(at: int, part: str) -> str:
    """Why we refuse what croniter would read, but not as anybody means it; '' where we do not."""
    if _HASHED.match(part):
        return "H and R stand for times that nobody can foretell; name them, or use jitter"
    span = _RANGE.match(part)
    if span and span[1] == span[2]:
        return f"a range from {span[1]} to itself is read as all values; write {span[1]}"
    step = _STEP.search(part)
    if step and int(step[1]) >= _SIZES[at]:
        return f"a step of {step[1]} is longer than the field; steps here go up to {_SIZES[at] - 1}"
    return ""


def _locate(expression: str, words: list[tuple[int, str]], error: Exception) -> SchedulerError:
    """Which field it is, and which part of it: what croniter refuses even with stars around it."""
    for at, (position, word) in enumerate(words):
        start = position
        for part in word.split(","):
            if not _is_read(at, part, len(words)):
                return _fault(expression, at, start, part, "")
            start += len(part) + 1
        if not _is_read(at, word, len(words)):
            return _fault(expression, at, position, word, "its parts do not go together")
    return SchedulerError(f"cron expression {expression!r} cannot be read: {error}")


def _is_read(at: int, word: str, count: int) -> bool:
    try:
        _croniter().expand(" ".join(word if other == at else "*" for other in range(count)))
    except _REFUSED:
        return False
    return True


def _fault(expression: str, at: int, position: int, part: str, why: str) -> SchedulerError:
    name = FIELDS[at]
    hint = f": {why}" if why else f"; allowed is {_ALLOWED[at]}, with * , - and /"
    return SchedulerError(
        f"cron expression {expression!r}: {part!r} at character {position} cannot be read as {name} (field {at + 1}){hint}"
    )
