"""What is wrong with a job class that shows only when a job of it is dispatched, or fails. For ``rf-jobs check``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from rf_jobs.model.jobclass import JobClass
from rf_jobs.model.sealing import UnreadAnnotations
from rf_jobs.words import options
from rf_jobs.words.backoff import delay_seconds
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import queue_name

MOST_ATTEMPTS = 50
"""For how many attempts a backoff is asked."""


def faults(entry: JobClass, example: Any = None) -> list[str]:
    """A sentence for each. ``example``: one of its jobs, whose option methods are asked; else one without arguments, where
    that can be made."""
    found = [*_field_faults(entry.type), *_sealing_faults(entry), *_backoff_faults(entry, entry.options.backoff)]
    if entry.dynamic:
        try:
            example = entry.type() if example is None else example
        except Exception:  # it has fields without defaults
            return found
        found += _option_faults(entry, example)
    return found


def _field_faults(kind: type[Any]) -> Iterator[str]:
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception as error:  # annotations are the user's code
        yield f"the annotations of its fields cannot be read: {type(error).__name__}: {error}"
        return
    for field in dataclasses.fields(kind):
        try:
            described = msgspec.inspect.type_info(hints[field.name])
        except Exception as error:
            yield f"field {field.name!r} has a type that cannot be written as JSON: {error}"
            continue
        for foreign in sorted(_foreign(described)):
            yield f"field {field.name!r} has the type {foreign}, which cannot be written as JSON"


def _foreign(described: Any) -> set[str]:
    """Types that msgspec does not know and that are no pydantic models, at any depth."""
    found: set[str] = set()
    todo, known = [described], set()
    while todo:
        each = todo.pop()
        if id(each) in known:
            continue
        known.add(id(each))
        if isinstance(each, msgspec.inspect.CustomType) and not hasattr(each.cls, "model_validate"):
            found.add(f"{each.cls.__module__}.{each.cls.__qualname__}")
        todo += _parts(each)
    return found


def _parts(described: Any) -> list[Any]:
    parts = []
    for name in getattr(described, "__struct_fields__", ()):
        value = getattr(described, name)
        for part in value if isinstance(value, tuple) else (value,):
            inner = getattr(part, "type", part) if isinstance(part, msgspec.inspect.Field) else part
            if isinstance(inner, msgspec.inspect.Type):
                parts.append(inner)
    return parts


def _sealing_faults(entry: JobClass) -> Iterator[str]:
    try:
        entry.sealing  # noqa: B018 (worked out when it is asked for)
    except UnreadAnnotations:
        return  # said already
    except InvalidOption as error:
        yield str(error)


def _option_faults(entry: JobClass, example: Any) -> Iterator[str]:
    """What its option methods answer with."""
    for name in sorted(entry.dynamic):
        try:
            value = getattr(example, name)()
            if value is not None and name in _OPTIONS:
                _OPTIONS[name](value)
        except Exception as raised:  # the user's code
            yield f"its {name}() fails: {_said(entry, raised)}"
            continue
        if name == "backoff":
            yield from _backoff_faults(entry, value)


_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "queue": queue_name,
    "max_attempts": options.attempts,
    "timeout": options.timeout_seconds,
    "priority": options.priority,
    "tags": options.tags,
}


def _backoff_faults(entry: JobClass, policy: Any) -> Iterator[str]:
    if policy is None:
        return
    error = RuntimeError("a failure that rf-jobs check made up")
    for attempt in range(1, min(entry.options.max_attempts or 3, MOST_ATTEMPTS) + 1):
        try:
            delay_seconds(policy, attempt, error)
        except Exception as raised:  # the user's code
            yield f"its backoff fails after attempt {attempt}: {_said(entry, raised)}"
            return


def _said(entry: JobClass, raised: Exception) -> str:
    """Of a class with sealed fields not the text, which may quote them."""
    kind = type(raised).__name__
    try:
        return kind if entry.sealing is not None else f"{kind}: {raised}"
    except InvalidOption:
        return kind
