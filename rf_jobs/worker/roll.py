"""What a supervisor tells the process that serves its page: who is there and how they are, a line each second."""

from __future__ import annotations

import msgspec


class Child(msgspec.Struct, frozen=True):
    """A worker process."""

    place: str
    pid: int
    readings: str
    """Where it gives its metrics, a socket's path; '' where they are off."""
    serving: bool
    """Whether the place is its own; False for one that is about to take it, or has handed it over."""
    slots: int
    busy: int


class Roll(msgspec.Struct, frozen=True):
    """All of them at one moment."""

    children: list[Child]
    troubles: list[str]
    """Why not every place makes progress, a sentence for each that does not."""
    wanted: int
    """How many places there are."""
    ends: dict[str, int]
    """How many processes have ended so far, by ``END_REASONS``."""


END_REASONS = ("crashed", "not_started", "recycled", "rolled", "stopped")


class PageOrder(msgspec.Struct, frozen=True):
    """The first line: what the page is to be like."""

    metrics: bool
    namespace: str
    as_json: bool
    """How it logs."""
    folder: str
    """Where the children's sockets are; the page removes it when the supervisor is gone."""
