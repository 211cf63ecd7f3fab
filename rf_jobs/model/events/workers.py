"""A worker's own life."""

from __future__ import annotations

from rf_jobs.model.events.base import Event, JobEvent


class WorkerEvent(Event, gc=False):
    """Something happened to a worker."""

    worker: str


class WorkerStarted(WorkerEvent, gc=False):
    """It is about to fetch."""

    queues: tuple[str, ...]
    slots: int


class WorkerStopping(WorkerEvent, gc=False):
    """It was told to stop, with so many jobs running."""

    running: int


class WorkerStopped(WorkerEvent, gc=False):
    """It has stopped: so many jobs ended by themselves, so many were handed back."""

    drained: int
    released: int


class WorkerBeat(WorkerEvent, gc=False):
    """Every second or so: how busy the worker is."""

    slots: int
    busy: int
    buffered: int
    queues: tuple[str, ...]
    busy_seconds: float
    """Slot-seconds spent in handlers since the last beat."""
    elapsed: float
    """Seconds since the last beat."""
    extension_failures: int = 0


class JobsFetched(WorkerEvent, gc=False):
    """A fetch was answered."""

    count: int
    error: str = ""


class LeaseLost(JobEvent, gc=False):
    """The worker found out that a job it runs is no longer its own."""

    worker: str


class LoopLagged(WorkerEvent, gc=False):
    """One sample of how late the event loop ran; above the threshold, the jobs that were on it."""

    seconds: float
    suspects: tuple[str, ...] = ()


class JobOverran(JobEvent, gc=False):
    """A handler ignored its timeout or its cancellation."""

    worker: str
    seconds: float
