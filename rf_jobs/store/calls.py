"""A storage operation as a value: what to send, and how to read the reply. An executor, async or sync, runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Arg = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One script, or one plain command where ``script`` is empty."""

    op: str
    """What metrics call it: dispatch, fetch, ack, extend, reclaim, flush, admin or read."""
    args: Sequence[Arg]
    read: Callable[[Any], T]
    script: str = ""


def text(value: Any) -> str:
    """A reply's bytes as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def texts(values: Sequence[Any]) -> list[str]:
    """A reply's list of bytes as text."""
    return [text(value) for value in values]


def pairs(flat: Sequence[Any] | dict[Any, Any]) -> dict[str, str]:
    """A flat list of names and values (or what RESP3 makes of it) as a dict."""
    if isinstance(flat, dict):
        return {text(k): text(v) for k, v in flat.items()}
    return {text(flat[i]): text(flat[i + 1]) for i in range(0, len(flat), 2)}
