"""Units and clocks: the one place where seconds become milliseconds.

The API takes seconds or ``timedelta``; the wire and the store hold integer milliseconds named ``*_ms``. ``now_ms`` is
for times that are stored or shown, ``mono`` for those that are subtracted. Due times and leases are judged by the
server's clock alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from rf_jobs.words.errors import InvalidOption

Duration = float | int | timedelta

MAX_DURATION_SECONDS = 100 * 365 * 86_400
"""A hundred years: longer ones are taken for a mistake in units."""

mono = time.monotonic


_moved: list[Callable[[int], int] | None] = [None]


def now_ms() -> int:
    """This host's wall clock, in milliseconds since 1970."""
    ms = time.time_ns() // 1_000_000
    return ms if _moved[0] is None else _moved[0](ms)


def move_wall_clock(moved: Callable[[int], int] | None) -> None:
    """Have ``now_ms`` answer with what ``moved`` makes of the true time; None: with the true time, as always but in tests
    that move the clock (``rf_jobs.testing``)."""
    _moved[0] = moved


def seconds(value: Duration, what: str = "duration") -> float:
    """``value`` in seconds.

    Raises ``InvalidOption`` where it is negative, not a number, or longer than a century.
    """
    if isinstance(value, timedelta):
        result = value.total_seconds()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:
            result = math.inf
    else:
        raise InvalidOption(f"{what} is {value!r}; give seconds as a number, or a timedelta")
    if not 0 <= result <= MAX_DURATION_SECONDS:
        raise InvalidOption(f"{what} is {value!r}; it must lie between 0 and 100 years (in seconds, or a timedelta)")
    return result


def millis(value: Duration, what: str = "duration") -> int:
    """``value`` in whole milliseconds; raises as ``seconds`` does."""
    return round(seconds(value, what) * 1000)


def moment_ms(value: datetime, what: str = "time") -> int:
    """An aware datetime in milliseconds since 1970; raises ``InvalidOption`` for a naive one."""
    if not isinstance(value, datetime):
        raise InvalidOption(f"{what} is {value!r}; give an aware datetime")
    if value.tzinfo is None:
        raise InvalidOption(f"{what} is {value!r}, which has no time zone; give one, e.g. tzinfo=timezone.utc")
    return round(value.timestamp() * 1000)


def from_ms(value: float) -> datetime:
    """Milliseconds since 1970 as an aware UTC datetime."""
    return datetime.fromtimestamp(value / 1000, UTC)
