"""What happens on the way into the store."""

from __future__ import annotations

from rf_jobs.model.events.base import Event, JobEvent


class JobDispatched(JobEvent, gc=False):
    """A job is in the store."""

    state: str
    delay_ms: int = 0
    priority: int = 1
    traceparent: str = ""
    began: float = 0.0
    """When its dispatch began (monotonic seconds)."""
    elsewhere: bool = False
    """Whether a job in a process of its own dispatched it, which made its trace context and writes no span."""


class JobDeduplicated(JobEvent, gc=False):
    """A dispatch found its job there already; nothing was enqueued."""


class DispatchRejected(Event, gc=False):
    """A dispatch failed; the job is not in the store, as far as the client knows."""

    queue: str
    job_class: str
    reason: str
    job_id: str = ""
    traceparent: str = ""
    began: float = 0.0


class JobOutboxed(JobEvent, gc=False):
    """A dispatch was written to an outbox, in a transaction that may yet roll back; a relay will tell ``JobDispatched``."""

    outbox: str


class OutboxRelayed(Event, gc=False):
    """A relay moved dispatches from an outbox to the server, or could not (``error``)."""

    outbox: str
    count: int
    lag: float
    """The longest that one of them had waited (seconds, by the database's clock)."""
    aside: int = 0
    """How many it put aside: they cannot be dispatched, and stay in the table with the reason."""
    error: str = ""


class OutboxMeasured(Event, gc=False):
    """A relay looked how much waits in its outbox, every few seconds."""

    outbox: str
    backlog: int
    """Rows, counted up to 100,000."""
    age: float
    """Of the oldest (seconds, by the database's clock)."""


class JobsPromoted(Event, gc=False):
    """Delayed jobs came due and are ready."""

    queue: str
    count: int
    lag_ms: int
