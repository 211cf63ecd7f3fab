"""Unique locks without a server: who holds one, by the rules of the store."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from rf_jobs.store.options import Unique
from rf_jobs.words.timing import now_ms


@dataclass
class _Lock:
    holder: UUID
    mode: str
    first_ms: int
    """When the first of those that replaced each other was dispatched."""
    until_ms: int | None
    over: bool = False
    """Whether the holder has ended, or for ``start`` has started."""


@dataclass(frozen=True)
class Taken:
    """What asking for a lock came to."""

    holder: UUID | None = None
    """The job that has it; None: it is the asker's."""
    replaces: UUID | None = None
    """The job whose place the asker takes."""
    delay_ms: int | None = None
    """By how much the asker is put off (debounce)."""


class Locks:
    """The unique locks of one stand-in. Time is ``now_ms``."""

    def __init__(self) -> None:
        self._locks: dict[str, _Lock] = {}

    def take(self, job_id: UUID, asked: Unique) -> Taken:
        """Ask for a lock."""
        now, found = now_ms(), self._locks.get(asked.digest)
        if found is not None and (
            (found.until_ms is not None and now >= found.until_ms) or (found.over and found.mode != "window")
        ):
            found = None
        if found is not None and (asked.conflict not in ("replace", "debounce") or found.over):
            return Taken(holder=found.holder)
        first = now if found is None else found.first_ms
        until, delay = now + asked.window if asked.window else None, None
        if asked.conflict == "debounce":
            delay = min(asked.window, first + asked.ceiling - now) if asked.ceiling else asked.window
            until = None
        self._locks[asked.digest] = _Lock(job_id, asked.mode, first, until)
        return Taken(
            replaces=None if found is None else found.holder, delay_ms=None if delay is None else max(0, delay)
        )

    def ended(self, job_id: UUID) -> None:
        """A job has ended: it waits no more, and holds only what it has for a window."""
        for lock in self._locks.values():
            if lock.holder == job_id:
                lock.over = True
