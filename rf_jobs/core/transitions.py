"""One function per edge of the state machine. A ``Transition`` is the call that makes a change together with the events
that announce it: there is no way to make one without saying so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec

from rf_jobs.core.records import error_entry
from rf_jobs.model import envelope
from rf_jobs.model.events import (
    AttemptEnded,
    AttemptLost,
    CancelRequested,
    Event,
    FailedAttempt,
    JobCancelled,
    JobDeduplicated,
    JobDied,
    JobDiscarded,
    JobDispatched,
    JobForgotten,
    JobReclaimed,
    JobReplayed,
    JobsFetched,
    JobsPromoted,
    JobUnparked,
    QueueCleared,
    QueuePaused,
    QueueResumed,
)
from rf_jobs.store.calls import Call
from rf_jobs.store.commands import Commands
from rf_jobs.store.shapes import Draft, Ending, Fetched, Reclaimed, Retention, Verdict
from rf_jobs.words.states import State

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


def enqueue(commands: Commands, jobs: Sequence[Dispatching]) -> Transition[list[int]]:
    """Dispatch; the reply holds the positions of those that were there already."""

    def announce(known: list[int]) -> Iterable[Event]:
        if not known:
            return [job.event for job in jobs]
        known_set = set(known)
        return [_deduplicated(job.event) if at in known_set else job.event for at, job in enumerate(jobs)]

    return Transition(commands.enqueue([job.draft for job in jobs]), announce)


def _deduplicated(event: JobDispatched) -> Event:
    return JobDeduplicated(event.job_id, event.queue, event.job_class)


def fetch(
    commands: Commands, worker: str, nonce: int, wanted: int, lease_ms: int, queues: Sequence[str]
) -> Transition[Fetched]:
    """Lease up to ``wanted`` jobs; promotes what is due on the way."""

    def announce(fetched: Fetched) -> Iterable[Event]:
        yield JobsFetched(worker, len(fetched.jobs))
        for queue, count, lag in fetched.promoted:
            yield JobsPromoted(queue, count, lag)

    return Transition(commands.fetch(worker, nonce, wanted, lease_ms, queues), announce)


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
) -> Transition[list[str]]:
    """Bury jobs that nobody could run in time."""
    message = f"no worker that knows its class came within {older_ms / 1000:g} s (park_ttl_seconds)"
    error = error_entry("UnknownJobClass", message)

    def announce(ids: list[str]) -> Iterable[Event]:
        for each in ids:
            yield JobDied(each, queue, "", 0, "", 0.0, 0.0, 0.0, "", "unknown_class", "UnknownJobClass", message)

    return Transition(commands.bury_parked(queue, older_ms, limit, retention, error), announce)


def pause(commands: Commands, queue: str) -> Transition[bool]:
    """Stop fetching from a queue."""
    return Transition(commands.pause(queue, True), lambda changed: [QueuePaused(queue)] if changed else [])


def resume(commands: Commands, queue: str) -> Transition[bool]:
    """Fetch from it again."""
    return Transition(commands.pause(queue, False), lambda changed: [QueueResumed(queue)] if changed else [])


def silent(call: Call[Any]) -> Transition[Any]:
    """A call that moves no job and has nothing to announce: a heartbeat, progress, a flush."""
    return Transition(call, lambda _: ())
