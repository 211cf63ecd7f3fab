"""A job class's static options, declared as class keywords and checked when the class is defined."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from rf_jobs.words.backoff import BackoffLike, policy
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import queue_name
from rf_jobs.words.states import Priority
from rf_jobs.words.timing import Duration, millis, seconds

EXECUTORS = ("thread", "process")
MAX_ATTEMPTS = 10_000
MAX_TAGS = 32
Exceptions = tuple[type[BaseException], ...]


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


def options_from(keywords: dict[str, object], class_name: str) -> JobOptions:
    """Class keywords as options; raises ``InvalidOption`` for an unknown keyword or a bad value."""
    known = [f.name for f in fields(JobOptions)]
    for key in keywords:
        if key not in known:
            near = difflib.get_close_matches(key, [*known, "name", "version"], 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are name, version, {', '.join(known)}"
            raise InvalidOption(f"class {class_name} has the unknown job option {key!r}{hint}")
    try:
        return JobOptions(**keywords)  # type: ignore[arg-type]
    except InvalidOption as error:
        raise InvalidOption(f"class {class_name}: {error}") from None


def attempts(value: object) -> int:
    """A number of attempts, at least 1."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ATTEMPTS:
        return value
    raise InvalidOption(f"max_attempts is {value!r}; it must be a whole number from 1 to {MAX_ATTEMPTS}")


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
