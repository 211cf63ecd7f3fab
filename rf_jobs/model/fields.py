"""What is wrong with a job class that shows only when a job of it is dispatched, or fails. For ``rf-jobs check``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from rf_jobs.model.jobclass import JobClass
from rf_jobs.model.sealing import UnreadAnnotations
from rf_jobs.words.backoff import delay_seconds
from rf_jobs.words.errors import InvalidOption

MOST_ATTEMPTS = 50
"""For how many attempts a backoff is asked."""


def faults(entry: JobClass) -> list[str]:
    """A sentence for each."""
    return [*_field_faults(entry.type), *_sealing_faults(entry), *_backoff_faults(entry)]


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


def _backoff_faults(entry: JobClass) -> Iterator[str]:
    policy = entry.options.backoff
    if policy is None or "backoff" in entry.dynamic:
        return
    error = RuntimeError("a failure that rf-jobs check made up")
    for attempt in range(1, min(entry.options.max_attempts or 3, MOST_ATTEMPTS) + 1):
        try:
            delay_seconds(policy, attempt, error)
        except Exception as raised:  # the user's code
            yield f"its backoff fails after attempt {attempt}: {type(raised).__name__}: {raised}"
            return
