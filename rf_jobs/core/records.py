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
    queue: str
    state: str
    priority: int
    attempt: int
    crashes: int
    dispatched_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    due_at: datetime | None
    expires_at: datetime | None
    worker: str
    reason: str
    tags: tuple[str, ...]
    payload: Any
    max_attempts: int | None
    errors: list[AttemptError] = field(default_factory=list)
    timeline: list[Moment] = field(default_factory=list)
    progress: Progress | None = None
    result: Any = None
    has_result: bool = False
    trace_id: str = ""
    cancel_requested: bool = False
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
