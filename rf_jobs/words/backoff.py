"""How long to wait before the next attempt.

A policy is called with the attempt that failed (1-based) and its error, and answers in seconds. ``Exponential`` with
full jitter is the recommended one: it spreads a crowd of retries best (Marc Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, runtime_checkable

from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.timing import Duration, seconds


@runtime_checkable
class Backoff(Protocol):
    """Seconds (or a ``timedelta``) to wait after ``attempt`` failed with ``error``."""

    def __call__(self, attempt: int, error: BaseException | None) -> Duration: ...


Policy = Callable[[int, BaseException | None], Duration]
BackoffLike = Duration | Backoff | Policy


@dataclass(frozen=True)
class Fixed:
    """The same delay each time."""

    delay: Duration

    def __post_init__(self) -> None:
        seconds(self.delay, "Fixed backoff")

    def __call__(self, attempt: int, error: BaseException | None = None) -> float:
        return seconds(self.delay, "Fixed backoff")


@dataclass(frozen=True)
class Linear:
    """``base`` after the first attempt, ``step`` (default: ``base``) more after each further one, at most ``cap``."""

    base: Duration
    step: Duration | None = None
    cap: Duration = 3600

    def __post_init__(self) -> None:
        seconds(self.base, "Linear backoff")
        seconds(self.cap, "cap of a Linear backoff")
        if self.step is not None:
            seconds(self.step, "step of a Linear backoff")

    def __call__(self, attempt: int, error: BaseException | None = None) -> float:
        base = seconds(self.base)
        step = base if self.step is None else seconds(self.step)
        return min(seconds(self.cap), base + step * (attempt - 1))


@dataclass(frozen=True)
class Exponential:
    """``base * 2**(attempt-1)``, at most ``cap``; with ``jitter`` 1 (full) any delay from 0 to that, with 0 exactly that."""

    base: Duration
    cap: Duration = 3600
    jitter: float = 1.0

    def __post_init__(self) -> None:
        seconds(self.base, "Exponential backoff")
        seconds(self.cap, "cap of an Exponential backoff")
        if not 0 <= self.jitter <= 1:
            raise InvalidOption(f"jitter is {self.jitter!r}; it must lie between 0 (none) and 1 (full)")

    def __call__(self, attempt: int, error: BaseException | None = None) -> float:
        # 2**64 s is beyond any cap; the bound keeps a huge attempt number from overflowing a float.
        full = min(seconds(self.cap), seconds(self.base) * 2.0 ** min(attempt - 1, 64))
        return full - random.random() * full * self.jitter  # noqa: S311 (spreads load, guards nothing)


def policy(value: BackoffLike) -> Policy:
    """``value`` as a policy; raises ``InvalidOption`` where it is none."""
    if isinstance(value, (int, float, timedelta)) and not isinstance(value, bool):
        return Fixed(value)
    if callable(value):
        return value
    raise InvalidOption(
        f"backoff is {value!r}; give seconds, a timedelta, Fixed, Linear, Exponential, or a callable of (attempt, error)"
    )


def delay_seconds(value: BackoffLike, attempt: int, error: BaseException | None) -> float:
    """The delay that ``value`` asks for after ``attempt`` failed; raises ``InvalidOption`` as ``policy`` does."""
    return seconds(policy(value)(attempt, error), "the delay that backoff gave")
