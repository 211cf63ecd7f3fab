"""What bounds jobs, as plain values: rates, circuit breakers, uniqueness."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Literal, get_args

from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.timing import Duration, millis

Algorithm = Literal["sliding", "bucket"]
Until = Literal["window", "started", "done"]
OnConflict = Literal["return", "raise", "replace", "debounce"]
OnLimit = Literal["delay", "raise", "drop"]
OnFailure = Literal["cancel", "run", "dead"]
MOST = 100_000
"""The greatest limit: a sliding window remembers as many starts."""
_PLAIN = re.compile(r"[\w.:@+\-]{1,64}\Z", re.ASCII)


@dataclass(frozen=True)
class Rate:
    """At most ``limit`` starts within any ``per`` seconds (``sliding``), or that many at once and then as many as trickle in
    (``bucket``). ``key`` names a field or property of the job: each of its values has a rate of its own."""

    limit: int
    per: Duration
    key: str | None = None
    algorithm: Algorithm = "sliding"

    def __post_init__(self) -> None:
        at_least_one(self.limit, "rate")
        positive_ms(self.per, "per")
        choice(self.algorithm, Algorithm, "algorithm")

    @property
    def per_ms(self) -> int:
        """``per`` in milliseconds."""
        return millis(self.per, "per")


@dataclass(frozen=True)
class Breaker:
    """After ``failures`` failed attempts of a class within ``per`` seconds its jobs do not start for ``cooldown`` seconds; the
    first failure within ``per`` seconds after that stops them again."""

    failures: int
    per: Duration = 60
    cooldown: Duration = 60

    def __post_init__(self) -> None:
        at_least_one(self.failures, "failures")
        positive_ms(self.per, "per")
        positive_ms(self.cooldown, "cooldown")


def at_least_one(value: object, what: str) -> int:
    """A limit; raises ``InvalidOption``."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST:
        return value
    hint = "; to let nothing start, pause the class" if value == 0 else ""
    raise InvalidOption(f"{what} is {value!r}; it must be a whole number from 1 to {MOST}{hint}")


def positive_ms(value: Duration, what: str) -> int:
    """A duration longer than nothing, in milliseconds; raises ``InvalidOption``."""
    ms = millis(value, what)
    if ms <= 0:
        raise InvalidOption(f"{what} is {value!r}; it must be more than 0 seconds")
    return ms


def choice(value: object, of: object, what: str) -> None:
    """One of a few words; raises ``InvalidOption``."""
    if value not in get_args(of):
        raise InvalidOption(f"{what} is {value!r}; it must be one of {', '.join(map(str, get_args(of)))}")


def limit_name(value: object) -> str:
    """``value`` as a limit's name; raises ``InvalidOption``."""
    if isinstance(value, str) and _PLAIN.match(value):
        return value
    raise InvalidOption(f"a limit is named {value!r}; use 1 to 64 letters, digits, and _ . : @ + -")


def plain(value: object) -> str:
    """A key's value, or a class's name, as it may stand in a limit's reference: itself where that is short and plain, else a
    digest."""
    text = str(value)
    return text if _PLAIN.match(text) else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:24]
