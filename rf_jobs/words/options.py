"""A job class's static options, declared as class keywords and checked when the class is defined."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from rf_jobs.words.backoff import BackoffLike, policy
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import queue_name
from rf_jobs.words.limits import (
    Breaker,
    OnConflict,
    Rate,
    Until,
    at_least_one,
    choice,
    limit_name,
    positive_ms,
)
from rf_jobs.words.states import Priority
from rf_jobs.words.timing import Duration, millis, seconds

EXECUTORS = ("thread", "process")
MAX_ATTEMPTS = 10_000
MAX_TAGS = 32
MAX_MANY = 1000
MAX_MANY_WAIT_SECONDS = 60.0
Exceptions = tuple[type[BaseException], ...]
T = TypeVar("T")


@dataclass(frozen=True)
class Many:
    """How jobs of a batch consumer are gathered: up to ``size`` of them, the first waiting at most ``wait`` seconds."""

    size: int = 100
    wait: float = 0.5


@dataclass(frozen=True)
class JobOptions:
    """What a class says of its jobs; ``None`` leaves it to the worker's or the process's settings."""

    queue: str | None = None
    max_attempts: int | None = None
    backoff: BackoffLike | None = None
    timeout: Duration | None = None
    priority: Priority = Priority.NORMAL
    tags: tuple[str, ...] = ()
    result_ttl: Duration | None = None
    executor: str = "thread"
    retry_on: Exceptions = ()
    discard_on: Exceptions = ()
    many: int | None = None
    many_wait: Duration | None = None
    encrypt: bool = False
    concurrency: int | None = None
    """How many may run at once, in the whole fleet."""
    concurrency_key: str | None = None
    """A field or property: so many for each of its values."""
    rate: Rate | None = None
    limits: tuple[str, ...] = ()
    """Names of limits that are shared with other classes, see ``manager.limits``."""
    fair_key: str | None = None
    """A field or property: its values take turns in the queue."""
    fair_weight: int | str = 1
    """How many turns a value has to another's one: a number, or a field or property."""
    breaker: Breaker | None = None
    unique_for: Duration | None = None
    unique_by: tuple[str, ...] = ()
    """Fields or properties that make two jobs the same; none: the whole payload."""
    unique_until: Until = "window"
    on_conflict: OnConflict = "return"

    def __post_init__(self) -> None:
        if self.queue is not None:
            queue_name(self.queue)
        if self.max_attempts is not None:
            attempts(self.max_attempts)
        if self.backoff is not None:
            policy(self.backoff)
        if self.timeout is not None:
            timeout_seconds(self.timeout)
        if self.result_ttl is not None:
            millis(self.result_ttl, "result_ttl")
        if self.executor not in EXECUTORS:
            raise InvalidOption(f"executor is {self.executor!r}; it must be one of {', '.join(EXECUTORS)}")
        object.__setattr__(self, "priority", priority(self.priority))
        object.__setattr__(self, "tags", tags(self.tags))
        for name in ("retry_on", "discard_on"):
            object.__setattr__(self, name, exceptions(getattr(self, name), name))
        if not isinstance(self.encrypt, bool):
            raise InvalidOption(f"encrypt is {self.encrypt!r}; it must be True or False")
        self._check_limits()
        if self.many is not None:
            many(self.many)
        if self.many_wait is not None:
            many_wait(self.many_wait)

    def _check_limits(self) -> None:
        if self.concurrency is not None:
            at_least_one(self.concurrency, "concurrency")
        for name, kind in (("rate", Rate), ("breaker", Breaker)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InvalidOption(f"{name} is {value!r}; give a {kind.__name__}(...)")
        for name in ("limits", "unique_by"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Iterable):
                raise InvalidOption(f"{name} is {value!r}; give a sequence of names")
            object.__setattr__(self, name, tuple(value))
        for limit in self.limits:
            limit_name(limit)
        if not isinstance(self.fair_weight, str):
            at_least_one(self.fair_weight, "fair_weight")
        if self.unique_for is not None:
            positive_ms(self.unique_for, "unique_for")
        choice(self.unique_until, Until, "unique_until")
        choice(self.on_conflict, OnConflict, "on_conflict")

    @property
    def gathering(self) -> Many:
        """How the jobs are gathered, if they are."""
        usual = Many()
        return Many(
            usual.size if self.many is None else many(self.many),
            usual.wait if self.many_wait is None else many_wait(self.many_wait),
        )


def options_from(keywords: dict[str, object], class_name: str) -> JobOptions:
    """Class keywords as options; raises ``InvalidOption`` for an unknown keyword or a bad value."""
    known = [f.name for f in fields(JobOptions)]
    for key in keywords:
        if key not in known:
            near = difflib.get_close_matches(key, [*known, "name", "version", "aliases"], 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are name, version, aliases, {', '.join(known)}"
            raise InvalidOption(f"class {class_name} has the unknown job option {key!r}{hint}")
    try:
        return JobOptions(**keywords)  # type: ignore[arg-type]
    except InvalidOption as error:
        raise InvalidOption(f"class {class_name}: {error}") from None


def at_least(value: object, least: int, what: str) -> int:
    """A whole number from ``least`` on."""
    if isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**63:
        return value
    raise InvalidOption(f"{what} is {value!r}; it must be a whole number from {least}")


def page(offset: object, limit: object) -> None:
    """Which part of a list is asked for."""
    at_least(offset, 0, "offset")
    at_least(limit, 1, "limit")


def text(value: object, what: str) -> str:
    """A text that can be written: half a character can't."""
    if isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value):
        return value
    raise InvalidOption(f"{what} is {value!r}; give a text")


def several(given: Iterable[T], what: str) -> list[T]:
    """What was given one after the other."""
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InvalidOption(f"{what} is {given!r}; give a sequence")
    return list(given)


def attempts(value: object) -> int:
    """A number of attempts, at least 1."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ATTEMPTS:
        return value
    raise InvalidOption(f"max_attempts is {value!r}; it must be a whole number from 1 to {MAX_ATTEMPTS}")


def many(value: object) -> int:
    """How many jobs one call of ``handle_many`` may get."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_MANY:
        return value
    raise InvalidOption(f"many is {value!r}; it must be a whole number from 1 to {MAX_MANY}")


def many_wait(value: Duration) -> float:
    """How long a job may wait for others, in seconds."""
    result = seconds(value, "many_wait")
    if not 0 <= result <= MAX_MANY_WAIT_SECONDS:
        raise InvalidOption(f"many_wait is {value!r}; it must be from 0 to {MAX_MANY_WAIT_SECONDS:g} seconds")
    return result


def timeout_seconds(value: Duration) -> float:
    """A timeout: longer than nothing."""
    result = seconds(value, "timeout")
    if result <= 0:
        raise InvalidOption(f"timeout is {value!r}; it must be more than 0 seconds")
    return result


def priority(value: Priority | str | int) -> Priority:
    """A priority, also from its number or name."""
    try:
        return Priority[value.upper()] if isinstance(value, str) else Priority(value)
    except (KeyError, ValueError):
        raise InvalidOption(f"priority is {value!r}; it must be one of {', '.join(p.name for p in Priority)}") from None


def tags(value: object) -> tuple[str, ...]:
    """A few short strings."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise InvalidOption(f"tags is {value!r}; give a sequence of strings")
    result = tuple(value)
    if len(result) > MAX_TAGS or not all(isinstance(tag, str) and _is_tag(tag) for tag in result):
        raise InvalidOption(f"tags is {result!r}; give at most {MAX_TAGS} strings of 1 to 128 characters")
    return result


def _is_tag(tag: str) -> bool:
    return 0 < len(tag) <= 128 and not any("\ud800" <= c <= "\udfff" for c in tag)  # half characters can't be written


def exceptions(value: object, what: str) -> Exceptions:
    """One exception class, or a sequence of them, as a tuple for ``except``."""
    given: tuple[Any, ...] = (value,) if isinstance(value, type) or not isinstance(value, Iterable) else tuple(value)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in given):
        raise InvalidOption(f"{what} is {value!r}; give exception classes")
    return given
