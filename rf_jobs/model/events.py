"""What the core publishes: one typed event for each transition, after the store has accepted it.

| event | when | says |
|---|---|---|
| JobDispatched, JobDeduplicated, DispatchRejected | a client dispatched | state, delay |
| JobOutboxed, OutboxRelayed, OutboxMeasured | a transaction wrote a dispatch to an outbox; a relay moved some on, or looked | how many, lag |
| JobsPromoted | delayed jobs came due and became ready | how many, the greatest lag |
| JobStarted | a handler is about to run | attempt, wait |
| JobCompleted, JobRetried, JobDied, JobSnoozed, JobReleased, JobDiscarded, JobExpired, JobParked, JobCrashed, AttemptLost | an attempt ended | times, error |
| JobReclaimed | a dead worker's job was taken back | crashes |
| JobUnparked, JobReplayed, JobForgotten, JobCancelled, CancelRequested | an operator's or the upkeep's doing | |
| JobCancelAcknowledged | its worker has told a running job to stop | seconds since the request |
| JobBlocked, JobUnblocked, JobRestored | it waits for others or for a limit; no more; again, since what it waited for was replayed | why |
| JobReprioritized, JobRescheduled | an operator moved a waiting job | |
| BatchFinished | the last member of a batch has ended | its state, how many failed |
| QueuePaused, QueueResumed, QueueCleared, HoldSet, HoldEnded | a queue; a class or a tag | |
| WorkerStarted, WorkerStopping, WorkerStopped, WorkerBeat, JobsFetched, LeaseLost, LoopLagged, JobOverran | the worker's own life | |
| ScheduleTicked, ScheduleTaken, ScheduleOverlapped, ScheduleMissed, ScheduleFailed | a tick of a schedule was dispatched, by this scheduler or another; was not, since the last is not over; was passed over; could not be | lag, how many, why |
| ScheduleAdded, ScheduleChanged, SchedulePaused, ScheduleResumed, ScheduleTriggered, ScheduleRemoved, ScheduleOrphaned | | |
| SchedulerStarted, SchedulerStopped | a scheduler's own life | |
| OperationDone | a round trip to the server ended | operation, seconds, error |

Subscribers are plain functions, called in the order of subscription on the thread that emits; one that raises is logged
and never disturbs the job. Telemetry is such a subscriber, and has no other way in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

log = logging.getLogger("rf_jobs.events")


class Event(msgspec.Struct, gc=False):
    """The root of all events."""


class JobEvent(Event, gc=False):
    """Something happened to one job."""

    job_id: str
    queue: str
    job_class: str
    """The class's stable name; empty where the envelope could not be read."""


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


class AttemptEvent(JobEvent, gc=False):
    """Something happened to an attempt. Times are seconds."""

    attempt: int
    worker: str
    wait: float
    """From eligible (dispatched, or due) to started."""


class JobStarted(AttemptEvent, gc=False):
    """A handler is about to run."""


class AttemptEnded(AttemptEvent, gc=False):
    """An attempt is over."""

    duration: float
    """How long the handler ran."""
    total: float
    """From first eligible to now, retries included."""
    trace: str = ""
    """traceparent of the attempt's span where one was recorded, for exemplars."""


class JobCompleted(AttemptEnded, gc=False):
    """The handler returned."""


class FailedAttempt(AttemptEnded, gc=False):
    """The attempt failed, or ended early with a reason."""

    reason: str = ""
    """Of a retry or a death: exception, timeout, decode, unknown_class, forged (its envelope), tampered (what is sealed in it), payload_lost, unknown_key and
    no_payload_store (nobody came who has it), lost (its last crash), backoff (its policy failed), dependency, or
    requested (``Retry``, ``Fail``); a hand-written consumer says what it likes. Of other ends: cancelled, shutdown, handed
    back, released, or the text that goes with it, such as what a ``Discard`` said, why it was parked, or how its process
    died."""
    error_type: str = ""
    message: str = ""
    traceback: str = ""


class JobRetried(FailedAttempt, gc=False):
    """It failed and will be tried again."""

    delay: float = 0.0


class JobDied(FailedAttempt, gc=False):
    """Buried among the dead letters."""


class JobDiscarded(FailedAttempt, gc=False):
    """The handler gave it up, or it was cancelled while it ran."""


class JobExpired(FailedAttempt, gc=False):
    """It was fetched after its expiry, and did not run."""


class JobSnoozed(FailedAttempt, gc=False):
    """The handler asked to run later; not an attempt."""

    delay: float = 0.0


class JobReleased(FailedAttempt, gc=False):
    """Handed back unrun, or stopped by a shutdown; not an attempt."""


class JobParked(FailedAttempt, gc=False):
    """This worker does not know its class."""


class JobCrashed(FailedAttempt, gc=False):
    """The process that ran it died under it: back to ready, or, after too many crashes, dead as poison."""


class AttemptLost(AttemptEnded, gc=False):
    """The attempt ended after its lease was lost: its outcome was refused, another worker has or had the job."""


class JobReclaimed(JobEvent, gc=False):
    """Taken back from a worker that fell silent."""

    crashes: int
    worker: str
    state: str
    """What it is now: ``ready``; ``dead``, buried as poison; or ``cancelled``, since it had been asked to stop."""
    token: str = ""
    """The lost lease's."""
    attempt: int = 0
    wait: float = 0.0
    """What the lost attempt had waited (seconds)."""


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
    """queued; cleared: removed together with all that waited in its queue; or dependency: because of what became of another job,
    or of its batch."""


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


class ScheduleEvent(Event, gc=False):
    """Something happened to a schedule."""

    schedule: str


class ScheduleTicked(ScheduleEvent, gc=False):
    """A tick's job was dispatched; ``JobDispatched`` says so too."""

    tick_ms: int
    job_id: str
    queue: str
    job_class: str
    lag: float
    """How late (seconds)."""
    traceparent: str = ""


class ScheduleTaken(ScheduleEvent, gc=False):
    """Another scheduler was quicker."""

    tick_ms: int


class ScheduleOverlapped(ScheduleEvent, gc=False):
    """Its job is unique, and an equal one was there still: nothing was dispatched."""

    tick_ms: int


class ScheduleMissed(ScheduleEvent, gc=False):
    """Ticks were passed over: nobody ran them in time, and the misfire policy does not want them now."""

    count: int


class ScheduleFailed(ScheduleEvent, gc=False):
    """A tick could not be dispatched; the schedule goes on with the next."""

    tick_ms: int
    reason: str


class ScheduleAdded(ScheduleEvent, gc=False):
    """It is in the store."""

    source: str
    """code or api."""


class ScheduleChanged(ScheduleEvent, gc=False):
    """It has another definition."""

    source: str


class SchedulePaused(ScheduleEvent, gc=False):
    """It does not run."""


class ScheduleResumed(ScheduleEvent, gc=False):
    """It runs again, from its next tick on."""


class ScheduleTriggered(ScheduleEvent, gc=False):
    """Somebody had it run out of turn."""

    job_id: str


class ScheduleRemoved(ScheduleEvent, gc=False):
    """It is gone; jobs that it dispatched are not."""


class ScheduleOrphaned(ScheduleEvent, gc=False):
    """No scheduler has it in its code any more: it does not run, until one does, or it is removed."""


class SchedulerStarted(Event, gc=False):
    """A scheduler is about to look after the schedules."""

    scheduler: str
    schedules: int
    """How many its code has."""


class SchedulerStopped(Event, gc=False):
    """It has stopped."""

    scheduler: str


class OperationDone(Event, gc=False):
    """A round trip to the server ended, well or not."""

    op: str
    seconds: float
    error: str = ""


E = TypeVar("E", bound=Event)
Handler = Callable[[Any], None]


class EventBus:
    """Delivers events to subscribers by their exact type."""

    def __init__(self) -> None:
        self._handlers: dict[type[Event], tuple[Handler, ...]] = {}

    def subscribe(self, kind: type[E], handler: Callable[[E], None]) -> Callable[[], None]:
        """Call ``handler`` for each event of ``kind`` or of a type below it; the answer ends the subscription."""
        kinds = kinds_of(kind)
        for each in kinds:
            self._handlers[each] = (*self._handlers.get(each, ()), handler)

        def unsubscribe() -> None:
            for each in kinds:
                self._handlers[each] = tuple(h for h in self._handlers[each] if h is not handler)

        return unsubscribe

    def wants(self, kind: type[Event]) -> bool:
        """Whether anyone listens, for emitters that would have to work for an event."""
        return bool(self._handlers.get(kind))

    def emit(self, event: Event) -> None:
        """Deliver one event."""
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Exception:
                log.exception("a subscriber failed on %s", type(event).__name__)

    def emit_all(self, events: Iterable[Event]) -> None:
        """Deliver several, in order."""
        handlers = self._handlers
        for event in events:
            if type(event) in handlers:
                self.emit(event)


def kinds_of(kind: type[Event]) -> list[type[Event]]:
    """It, and all below it."""
    found = [kind]
    for below in kind.__subclasses__():
        found += kinds_of(below)
    return found
