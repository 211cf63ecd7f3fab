"""A storage operation as a value: what to send, and how to read the reply. An executor, async or sync, runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

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
    moves: int = -1
    """For a script that moves jobs: where in its reply the effects stand, and behind them how much is left in the outbox."""

    def with_effects(self) -> Call[tuple[T, list[Effect], int]]:
        """The same call, answering with what followed from it too; for a script that moves jobs."""
        at = self.moves

        def read(reply: Any) -> tuple[T, list[Effect], int]:
            flat = texts(reply[at])
            effects = [Effect(*flat[i : i + 5]) for i in range(0, len(flat), 5)]
            return self.read(reply), effects, int(reply[at + 1])

        return Call(self.op, self.args, read, self.script)


class Effect(NamedTuple):
    """What followed from a script's change, for others than those that it was asked to change."""

    event: str
    """blocked, unblocked, restored, dispatched, cancelled, dead: a job; or batch: one has ended."""
    queue: str
    """Of a batch: its state."""
    id: str
    job_class: str
    """Of a batch: batch or chain."""
    detail: str
    """Why; of dispatched: the priority; of a batch: how many failed, and the ms that it took."""


def text(value: Any) -> str:
    """A reply's bytes as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def texts(values: Sequence[Any]) -> list[str]:
    """A reply's list of bytes as text."""
    return [text(value) for value in values]


def pairs(flat: Sequence[Any] | dict[Any, Any]) -> dict[str, str]:
    """A flat list of names and values (or what RESP3 makes of it) as a dict."""
    if isinstance(flat, dict):
        return {_readable(k): _readable(v) for k, v in flat.items()}
    return {_readable(flat[i]): _readable(flat[i + 1]) for i in range(0, len(flat), 2)}


def _readable(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
