"""What happens to jobs that wait, to batches and to queues."""

from __future__ import annotations

from rf_jobs.model.events.base import Event, JobEvent


class JobUnparked(JobEvent, gc=False):
    """A worker that knows its class came; it is ready again."""


class JobReplayed(JobEvent, gc=False):
    """A dead letter is ready again."""

    traceparent: str = ""


class JobForgotten(JobEvent, gc=False):
    """A dead letter was removed for good."""


class JobCancelled(JobEvent, gc=False):
    """Cancelled before it ran."""

    stage: str = "queued"
    """queued; cleared: removed together with all that waited in its queue; replaced: by an equal job; or dependency: because of what
    became of another job, or of its batch."""


DEPENDENCIES = "dependencies"
"""The reason of a job that waits for others."""


class JobBlocked(JobEvent, gc=False):
    """It waits for other jobs, or for a limit."""

    reason: str = ""
    """``DEPENDENCIES``; or the limit, or ``!`` and the hold."""


class JobUnblocked(JobEvent, gc=False):
    """What it waited for has come; it is ready, or scheduled."""

    reason: str = ""
    """Empty; or the limit, or ``!`` and the hold."""


class JobRestored(JobEvent, gc=False):
    """It had ended because of another job that is replayed now: it waits for that again."""

    parent: str = ""


class JobReprioritized(JobEvent, gc=False):
    """It waits with another priority."""

    priority: int


class JobRescheduled(JobEvent, gc=False):
    """It waits for another time."""

    delay: float
    """Seconds from now, 0: at once."""


class BatchFinished(Event, gc=False):
    """The last member of a batch, or of a chain, has ended."""

    batch: str
    kind: str
    """batch or chain."""
    state: str
    """completed, failed or cancelled."""
    failed: int
    seconds: float
    """From its dispatch."""


class HoldSet(Event, gc=False):
    """Jobs of a class, or with a tag, do not start."""

    scope: str
    """``class:`` and the name, or ``key:`` and the tag."""
    seconds: float
    """For how long, 0: until it is ended."""


class HoldEnded(Event, gc=False):
    """They start again."""

    scope: str


class CancelRequested(JobEvent, gc=False):
    """It runs; its worker is asked to stop it, and says so with ``JobCancelAcknowledged``."""


class JobCancelAcknowledged(JobEvent, gc=False):
    """Its worker has told the handler to stop; ``JobDiscarded`` says that it has."""

    worker: str
    seconds: float
    """Since it was asked to."""


class QueuePaused(Event, gc=False):
    """Workers stop fetching from it."""

    queue: str


class QueueResumed(Event, gc=False):
    """Workers fetch from it again."""

    queue: str


class QueueCleared(Event, gc=False):
    """Its waiting jobs were removed."""

    queue: str
    count: int
