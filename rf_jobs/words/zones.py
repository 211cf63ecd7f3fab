"""Time zones: a zone by its name, and what happens to local times where a zone's clocks are changed.

A local time ("wall") is a number here: the seconds from 1970-01-01 00:00 to it as if it were UTC. A real moment is the
usual Unix time. Between two changes the one is the other plus a constant.
"""

from __future__ import annotations

import difflib
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from rf_jobs.words.errors import SchedulerError

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 (a local time)
_LONGEST_NAME = 64
DAY = 86_400


class Zone:
    """A time zone's clock. All times are whole seconds."""

    __slots__ = ("_info", "name")

    def __init__(self, name: str, info: tzinfo) -> None:
        self.name = name
        self._info = info

    def offset(self, moment: int) -> int:
        """What the local clock is ahead of UTC at this moment."""
        return _seconds(datetime.fromtimestamp(moment, self._info).utcoffset())

    def offsets(self, wall: int) -> tuple[int, int]:
        """The offsets before and after the change that this local time is touched by; twice the same where it is by none.

        Where the first is the greater, the local time comes twice; where it is the lesser, it is skipped.
        """
        local = (_EPOCH + timedelta(seconds=wall)).replace(tzinfo=self._info)
        return _seconds(local.utcoffset()), _seconds(local.replace(fold=1).utcoffset())

    def change(self, wall: int, before: int, after: int) -> int:
        """The moment of the change that this local time, of different ``offsets``, is touched by."""
        low, high = wall - max(before, after), wall - min(before, after)
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == before:
                low = middle
            else:
                high = middle
        return high


def _seconds(offset: timedelta | None) -> int:
    return 0 if offset is None else offset.days * DAY + offset.seconds


@lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The zone of this IANA name. Raises ``SchedulerError`` that names the nearest ones."""
    if name == "UTC":  # needs no database, which slim images lack
        return Zone(name, UTC)
    info = _find(name) if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME else None
    if info is None:
        raise SchedulerError(f"time zone is {str(name)[:_LONGEST_NAME]!r}, which is unknown; {_advice(name)}")
    return Zone(name, info)


def _find(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _advice(name: object) -> str:
    known = sorted(available_timezones())
    if not known:
        return "this system has no time zone database: install the package tzdata"
    near = nearest(str(name)[:_LONGEST_NAME], known)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return "give an IANA name, such as Europe/Paris, America/New_York or UTC"


def nearest(name: str, known: list[str]) -> list[str]:
    """Up to three of the known names that somebody who wrote ``name`` may have meant, the likeliest first."""
    wanted = name.strip().replace(" ", "_").lower()
    lowered = {each.lower(): each for each in known}
    found = [lowered[wanted]] if wanted in lowered else []
    found += [each for low, each in lowered.items() if low.rpartition("/")[2] == wanted.rpartition("/")[2]]
    found += [lowered[low] for low in difflib.get_close_matches(wanted, list(lowered), 3, 0.6)]
    return list(dict.fromkeys(found))[:3]
