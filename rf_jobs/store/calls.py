"""A storage operation as a value: what to send, and how to read the reply. An executor, async or sync, runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
Arg = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One script, or one plain command where ``script`` is empty; or what ``parts`` do together."""

    op: str
    """What metrics call it: dispatch, fetch, ack, extend, reclaim, flush, admin or read."""
    args: Sequence[Arg]
    read: Callable[[Any], T]
    """Makes the answer of the reply; where there are parts, of the list of their answers."""
    script: str = ""
    moves: int = -1
    """For a script that moves jobs: where in its reply the effects stand, and behind them how much is left in the outbox, and
    how much was sent to other shards."""
    shard: int = 0
    """Where it is to be done."""
    parts: tuple[Call[Any], ...] = ()
    """Calls in several shards that make up this one. Any of them may have been done when it fails."""

    @property
    def moves_jobs(self) -> bool:
        """Whether it answers ``with_effects``."""
        return self.moves >= 0 or any(part.moves >= 0 for part in self.parts)

    def with_effects(self) -> Call[tuple[T, list[Effect], Left]]:
        """The same call, answering with what followed from it too; for a script that moves jobs."""
        if self.parts:

            def merge(answers: list[tuple[Any, list[Effect], Left]]) -> tuple[T, list[Effect], Left]:
                left = Left(sum(left.here for _, _, left in answers), sum(left.abroad for _, _, left in answers))
                return self.read([reply for reply, _, _ in answers]), [e for _, es, _ in answers for e in es], left

            return Call(self.op, (), merge, parts=tuple(part.with_effects() for part in self.parts))
        at = self.moves

        def read(reply: Any) -> tuple[T, list[Effect], Left]:
            flat = texts(reply[at])
            effects = [Effect(*flat[i : i + 5]) for i in range(0, len(flat), 5)]
            return self.read(reply), effects, Left(*map(int, reply[at + 1 : at + 3]))

        return Call(self.op, self.args, read, self.script, shard=self.shard)


class Left(NamedTuple):
    """What a script has not done itself."""

    here: int
    """Consequences that are in its shard's outbox."""
    abroad: int = 0
    """How many it sent to other shards."""


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
