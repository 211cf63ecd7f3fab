"""One function per edge of the state machine. A ``Transition`` is the call that makes a change together with the events
that announce it: there is no way to make one without saying so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

import msgspec
from msgspec.structs import replace

from rf_jobs.core.records import error_entry
from rf_jobs.model import envelope
from rf_jobs.model.context import JobContext
from rf_jobs.model.events import (
    DEPENDENCIES,
    AttemptEnded,
    AttemptLost,
    BatchFinished,
    CancelRequested,
    DispatchRejected,
    Event,
    FailedAttempt,
    HoldEnded,
    HoldSet,
    JobBlocked,
    JobCancelAcknowledged,
    JobCancelled,
    JobDeduplicated,
    JobDied,
    JobDiscarded,
    JobDispatched,
    JobForgotten,
    JobReclaimed,
    JobReplayed,
    JobReprioritized,
    JobRescheduled,
    JobRestored,
    JobsFetched,
    JobsPromoted,
    JobUnblocked,
    JobUnparked,
    QueueCleared,
    QueuePaused,
    QueueResumed,
)
from rf_jobs.store import batch_calls, limit_calls
from rf_jobs.store.batch_calls import NewBatch
from rf_jobs.store.calls import Call, Effect
from rf_jobs.store.commands import Commands
from rf_jobs.store.shapes import Draft, Ending, Fetched, Reclaimed, Report, Retention, Verdict
from rf_jobs.words.states import State
from rf_jobs.words.timing import now_ms

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Transition(Generic[R]):
    """A change and its announcement."""

    call: Call[R]
    announce: Callable[[R], Iterable[Event]]


class Dispatching(msgspec.Struct, frozen=True, gc=False):
    """A draft and the event to announce when it is in."""

    id: UUID
    draft: Draft
    event: JobDispatched


class AttemptEnd(msgspec.Struct, frozen=True, gc=False):
    """How an attempt ends, for the store and for those who listen."""

    ending: Ending
    event: AttemptEnded


UNKNOWN_CLASS = "unknown_class"
"""Why a job is buried whose class no worker knew."""
REFUSED_DISPATCH = {
    "no_parent": "JobNotFound",
    "batch": "BatchClosed",
    "limited": "RateLimited",
    "dropped": "RateLimited",
}
"""What the store says of a dispatch that it did not take, and the error that it amounts to."""


def enqueue(commands: Commands, jobs: Sequence[Dispatching]) -> Transition[dict[int, tuple[str, str]]]:
    """Dispatch; the reply holds what is to be said of some, by position: see enqueue.lua."""

    def announce(said: dict[int, tuple[str, str]]) -> Iterable[Event]:
        if not said:
            return [job.event for job in jobs]
        return [event for at, job in enumerate(jobs) for event in _dispatched(job.event, *said.get(at, ("", "")))]

    return Transition(commands.enqueue([job.draft for job in jobs]), announce)


def rejected(event: JobDispatched, error: str) -> DispatchRejected:
    """What to announce instead, where the job is not in."""
    return DispatchRejected(event.queue, event.job_class, error, event.job_id, event.traceparent, event.began)


def _dispatched(event: JobDispatched, code: str, detail: str) -> Iterable[Event]:
    if code in ("known", "unique"):
        yield JobDeduplicated(event.job_id, event.queue, event.job_class)
    elif code in REFUSED_DISPATCH:
        yield rejected(event, REFUSED_DISPATCH[code])
    elif code == "delayed":
        yield replace(event, state=State.SCHEDULED, delay_ms=int(detail))
    elif code == "waits" and detail == State.BLOCKED:
        yield replace(event, state=State.BLOCKED)
        yield JobBlocked(event.job_id, event.queue, event.job_class, DEPENDENCIES)
    else:
        yield event


def events_of(effects: Iterable[Effect]) -> Iterable[Event]:
    """The events for what followed from a change."""
    for event, queue, job_id, job_class, detail in effects:
        if event == "dispatched":
            yield JobDispatched(job_id, queue, job_class, State.READY, priority=int(detail or 1))
        elif event == "batch":
            failed, ms = detail.split()
            yield BatchFinished(job_id, job_class, queue, int(failed), int(ms) / 1000)
        elif event == "cancelled":
            yield JobCancelled(
                job_id, queue, job_class, "replaced" if detail.startswith("replaced by ") else "dependency"
            )
        elif event == "dead":
            yield JobDied(job_id, queue, job_class, 0, "", 0.0, 0.0, 0.0, "", "dependency", "DependencyFailed", detail)
        else:
            yield _WAITING[event](job_id, queue, job_class, detail)


_WAITING: dict[str, type[JobBlocked | JobUnblocked | JobRestored]] = {
    "blocked": JobBlocked,
    "unblocked": JobUnblocked,
    "restored": JobRestored,
}


def fetch(
    commands: Commands, worker: str, nonce: int, wanted: int, lease_ms: int, queues: Sequence[str], ageing_ms: int = 0
) -> Transition[Fetched]:
    """Lease up to ``wanted`` jobs; promotes what is due on the way."""

    def announce(fetched: Fetched) -> Iterable[Event]:
        yield JobsFetched(worker, len(fetched.jobs))
        for queue, count, lag in fetched.promoted:
            yield JobsPromoted(queue, count, lag)

    return Transition(commands.fetch(worker, nonce, wanted, lease_ms, queues, ageing_ms), announce)


def finish(commands: Commands, ends: Sequence[AttemptEnd], retention: Retention) -> Transition[list[int]]:
    """End attempts: complete, retry, bury, snooze, release, discard, expire, park."""

    def announce(verdicts: list[int]) -> Iterable[Event]:
        # "Done before" is the answer to our own call sent again: it did happen, and was not announced yet.
        return [
            end.event if 0 < verdict <= Verdict.DONE_BEFORE else _instead(end.event, verdict)
            for end, verdict in zip(ends, verdicts, strict=True)
        ]

    return Transition(commands.finish([end.ending for end in ends], retention), announce)


def _instead(event: AttemptEnded, verdict: int) -> Event:
    """The event for what the store did instead of what the ending asked for."""
    if verdict == Verdict.REFUSED:
        return AttemptLost(*_fields(event))
    error = (event.error_type, event.message, event.traceback) if isinstance(event, FailedAttempt) else ()
    if verdict == Verdict.BURIED:
        return JobDied(*_fields(event), "lost", *error)
    return JobDiscarded(*_fields(event), "cancelled", *error)


def _fields(e: AttemptEnded) -> tuple[str, str, str, int, str, float, float, float, str]:
    """What every ending has."""
    return e.job_id, e.queue, e.job_class, e.attempt, e.worker, e.wait, e.duration, e.total, e.trace


REFUSED = "outcome refused"


def refused(end: AttemptEnd, why: str) -> AttemptEnd:
    """What to tell the store of an attempt whose true ending it can't take: the work is done or has failed, and running it
    again would change nothing."""
    e, name = end.ending, "OutcomeRefused"
    message = f"the store could not take how the attempt ended ({e.verb}): {why}"[:500]
    data = error_entry(name, message, worker=end.event.worker, attempt=end.event.attempt)
    event = JobDied(*_fields(end.event), "exception", name, message)
    return AttemptEnd(Ending("bury", e.queue, e.id, e.token, 0, REFUSED, data), event)


def crash_report(worker: str, message: str) -> bytes:
    """The error history's entry for a job whose worker died."""
    return error_entry("WorkerLost", message, worker=worker)


def reclaim(
    commands: Commands, limit: int, max_crashes: int, retention: Retention, queues: Sequence[str]
) -> Transition[list[Reclaimed]]:
    """Take back jobs whose lease ran out."""
    error = crash_report("", "the worker's lease ran out: it died, hung, or lost the server")

    def announce(taken: list[Reclaimed]) -> Iterable[Event]:
        for job in taken:
            letter = envelope.readable(job.data)
            yield JobReclaimed(
                job.id, job.queue, letter.job if letter else "", job.crashes, job.token.partition(".")[0], job.state, job.token, job.attempt,
                job.waited_ms / 1000,
            )  # fmt: skip

    return Transition(commands.reclaim(limit, max_crashes, retention, error, queues), announce)


def cancel(
    commands: Commands, job_id: str, queue: str, job_class: str, reason: str, retention: Retention
) -> Transition[tuple[str, bool]]:
    """Cancel a waiting job, or ask a running one to stop."""

    def announce(reply: tuple[str, bool]) -> Iterable[Event]:
        state, done = reply
        if done and state == State.RUNNING:
            yield CancelRequested(job_id, queue, job_class)
        elif done:
            yield JobCancelled(job_id, queue, job_class)

    return Transition(commands.cancel(job_id, queue, reason, retention), announce)


def report(
    commands: Commands, reports: Sequence[Report], about: Sequence[JobContext], most: int, most_bytes: int
) -> Transition[list[int]]:
    """Keep what running jobs say of themselves; ``about`` are their contexts, in the order of ``reports``."""

    def announce(replies: list[int]) -> Iterable[Event]:
        for ctx, reply in zip(about, replies, strict=True):
            if reply > 0:
                yield JobCancelAcknowledged(ctx.id, ctx.queue, ctx.job_class, ctx.worker, (reply - 1) / 1000)

    return Transition(commands.report(reports, most, most_bytes), announce)


def open_batches(batches: Sequence[NewBatch]) -> Transition[str]:
    """Make batches, all of one shard; see ``batch_calls.open_batches``."""
    return Transition(batch_calls.open_batches(batches), lambda _: ())


def seal(commands: Commands, batches: Sequence[NewBatch]) -> Transition[None]:
    """The dispatch of these batches is complete. Inner ones first."""
    return Transition(batch_calls.seal(commands, batches), lambda _: ())


def stop_batch(commands: Commands, batch: str, reason: str) -> Transition[bool]:
    """Cancel what waits of a batch, and ask what runs to stop; what follows is announced job by job."""
    return Transition(batch_calls.stop(commands, batch, reason), lambda _: ())


def hold(commands: Commands, scope: str, ms: int) -> Transition[bool]:
    """Let no job of a scope start for so long, 0: until further notice."""
    return Transition(
        limit_calls.hold(commands, scope, ms), lambda changed: [HoldSet(scope, ms / 1000)] if changed else []
    )


def end_hold(commands: Commands, scope: str) -> Transition[bool]:
    """Let them start again."""
    return Transition(limit_calls.hold(commands, scope, None), lambda changed: [HoldEnded(scope)] if changed else [])


def failure(
    commands: Commands, queue: str, job_class: str, most: int, per_ms: int, cooldown_ms: int
) -> Transition[bool]:
    """Count a failed attempt for its class's circuit breaker."""

    def announce(opened: bool) -> Iterable[Event]:
        if opened:
            yield HoldSet(f"class:{job_class}", cooldown_ms / 1000)

    return Transition(limit_calls.failure(commands, queue, job_class, most, per_ms, cooldown_ms), announce)


def move(
    commands: Commands, job_id: str, queue: str, job_class: str, what: str, value: str
) -> Transition[tuple[str, bool]]:
    """Give a waiting job another priority or another due time; ``value`` is as move.lua takes it."""

    def announce(reply: tuple[str, bool]) -> Iterable[Event]:
        if reply[1] and what == "priority":
            yield JobReprioritized(job_id, queue, job_class, int(value))
        elif reply[1]:
            due = int(value or 0)
            delay = due / 1000 if value.startswith("+") else max(0, due - now_ms()) / 1000
            yield JobRescheduled(job_id, queue, job_class, delay)

    return Transition(commands.move(job_id, queue, what, value), announce)


def revive(commands: Commands, queue: str, jobs: dict[str, str]) -> Transition[list[str]]:
    """Dead letters back to ready. ``jobs``: id to class name."""
    return Transition(
        commands.revive(queue, list(jobs)), lambda ids: [JobReplayed(each, queue, jobs.get(each, "")) for each in ids]
    )


def forget(commands: Commands, queue: str, jobs: dict[str, str]) -> Transition[list[str]]:
    """Remove dead letters for good. ``jobs``: id to class name."""
    return Transition(
        commands.forget(queue, list(jobs)), lambda ids: [JobForgotten(each, queue, jobs.get(each, "")) for each in ids]
    )


def clear(commands: Commands, queue: str, state: State, limit: int) -> Transition[list[str]]:
    """Remove up to ``limit`` waiting jobs."""

    def announce(ids: list[str]) -> Iterable[Event]:
        for each in ids:
            yield JobCancelled(each, queue, "", "cleared")
        if ids:
            yield QueueCleared(queue, len(ids))

    return Transition(commands.clear(queue, state, limit), announce)


def unpark(commands: Commands, queue: str, jobs: dict[str, str]) -> Transition[list[str]]:
    """Parked jobs back to ready. ``jobs``: id to class name."""
    return Transition(
        commands.unpark(queue, list(jobs)), lambda ids: [JobUnparked(each, queue, jobs.get(each, "")) for each in ids]
    )


def bury_parked(
    commands: Commands, queue: str, older_ms: int, limit: int, retention: Retention
) -> Transition[list[tuple[str, str]]]:
    """Bury jobs that nobody could run in time."""
    within = f"came within {older_ms / 1000:g} s (park_ttl_seconds)"
    unknown = "UnknownJobClass", f"no worker that knows its class {within}"
    closed = "NobodyCouldOpenIt", f"no worker that has what it takes to open it {within}; its timeline says what"

    def announce(buried: list[tuple[str, str]]) -> Iterable[Event]:
        for each, reason in buried:
            said = unknown if reason == UNKNOWN_CLASS else closed
            yield JobDied(each, queue, "", 0, "", 0.0, 0.0, 0.0, "", reason, *said)

    errors = error_entry(*unknown), error_entry(*closed)
    return Transition(commands.bury_parked(queue, older_ms, limit, retention, *errors), announce)


def pause(commands: Commands, queue: str) -> Transition[bool]:
    """Stop fetching from a queue."""
    return Transition(commands.pause(queue, True), lambda changed: [QueuePaused(queue)] if changed else [])


def resume(commands: Commands, queue: str) -> Transition[bool]:
    """Fetch from it again."""
    return Transition(commands.pause(queue, False), lambda changed: [QueueResumed(queue)] if changed else [])
