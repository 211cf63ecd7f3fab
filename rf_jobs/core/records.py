"""What the read model answers with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True)
class Progress:
    """How far a job is."""

    current: float = 0.0
    total: float = 0.0
    message: str = ""

    @property
    def percentage(self) -> float:
        """0 to 100; 0 where the total is not known."""
        return 100.0 * self.current / self.total if self.total else 0.0


@dataclass(frozen=True)
class AttemptError:
    """One failure in a job's history."""

    type: str
    message: str
    traceback: str
    worker: str
    attempt: int
    at: datetime
    started_at: datetime | None = None


@dataclass(frozen=True)
class Moment:
    """One transition in a job's timeline."""

    at: datetime
    event: str
    detail: str = ""


@dataclass(frozen=True)
class JobRecord:
    """All that is known of one job."""

    id: UUID
    job_class: str
    """The class's stable name; empty where the envelope is gone or cannot be read."""
    queue: str
    state: str
    """One of ``State``."""
    priority: int
    attempt: int
    """How many attempts there were, the one that runs included; 0 before the first."""
    crashes: int
    """How often a process died over it."""
    dispatched_at: datetime | None
    """By the client's clock; the other times are the server's."""
    started_at: datetime | None
    """When its last lease was taken."""
    finished_at: datetime | None
    due_at: datetime | None
    """When it may run; None unless it is scheduled."""
    expires_at: datetime | None
    worker: str
    """Id of the worker that leased it last."""
    reason: str
    """Why it ended or was parked, where there is something to say."""
    tags: tuple[str, ...]
    payload: Any
    """Its fields as plain data."""
    max_attempts: int | None
    """What the dispatch asked for; None leaves it to the class."""
    errors: list[AttemptError] = field(default_factory=list)
    """Oldest first; the last 50."""
    timeline: list[Moment] = field(default_factory=list)
    """Oldest first: dispatch, the last start, the end, and what is not plain in between (the last 100)."""
    progress: Progress | None = None
    result: Any = None
    """What the handler returned, while that is kept."""
    has_result: bool = False
    """Whether a result is kept; a handler that answers with None has none."""
    trace_id: str = ""
    """Of the dispatch; empty where it was not traced."""
    cancel_requested: bool = False
    """Whether it was asked to stop while it ran."""
    was_delayed: bool = False
    """Whether it was dispatched to run later."""

    @property
    def last_error(self) -> AttemptError | None:
        """The newest failure."""
        return self.errors[-1] if self.errors else None


@dataclass(frozen=True)
class QueueInfo:
    """One queue."""

    name: str
    counts: dict[str, int]
    paused: bool
    oldest_ready_seconds: float
    oldest_running_seconds: float
    oldest_dead_seconds: float
    ledger: dict[str, int]
    """What ever happened on the queue, by ledger event; docs/reference/state-machine.md has them all."""
    imbalance: int
    """0 while the conservation law holds: jobs that the ledger and the structures disagree about."""

    @property
    def size(self) -> int:
        """How many are ready."""
        return self.counts["ready"]


@dataclass(frozen=True)
class WorkerInfo:
    """One worker process."""

    id: str
    host: str
    pid: int
    queues: tuple[str, ...]
    state: str
    """running, stopping, or stale: silent for longer than it should be."""
    slots: int
    busy: int
    started_at: datetime | None
    last_beat: datetime | None
    version: str
    utilization: float
    facts: dict[str, str] = field(default_factory=dict)
    """All that its record in the store holds, as text: also buffered, done, port, and its last fetch."""
