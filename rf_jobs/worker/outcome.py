"""How an attempt went, as values; and what follows from it: a pure decision."""

from __future__ import annotations

import traceback as tb
from dataclasses import dataclass
from typing import Any

import msgspec

from rf_jobs.core.records import clip, error_entry
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model.codec import encode_value
from rf_jobs.model.events import (
    AttemptEnded,
    AttemptLost,
    FailedAttempt,
    JobCompleted,
    JobCrashed,
    JobDied,
    JobDiscarded,
    JobExpired,
    JobParked,
    JobReleased,
    JobRetried,
    JobSnoozed,
)
from rf_jobs.model.sealing import Guard
from rf_jobs.store.shapes import Ending, Leased
from rf_jobs.words.backoff import BackoffLike, delay_seconds
from rf_jobs.words.control import Discard, Fail, Retry, Snooze
from rf_jobs.words.errors import ExecutionFailed, InvalidOption, JobTimeout, SerializationError, WorkerError

MAX_MESSAGE = 2_000
MAX_TRACEBACK = 12_000


class Completed(msgspec.Struct, frozen=True, gc=False):
    """The handler returned."""

    value: Any = None


@dataclass(slots=True)
class Failed:
    """The handler raised, or could not be called."""

    error: BaseException
    reason: str = "exception"
    for_good: bool = False


@dataclass(slots=True)
class Stopped:
    """The attempt was ended from outside: ``verb`` is release (shutdown), discard (cancelled), park or expire."""

    verb: str
    reason: str


@dataclass(slots=True)
class Lost:
    """The lease was lost while it ran: whatever came of it, it must not be told to the store."""


@dataclass(slots=True)
class Crashed:
    """The process that ran it died under it."""

    message: str


Outcome = Completed | Failed | Stopped | Lost | Crashed


@dataclass(slots=True)
class Policy:
    """What the job's class, its dispatch and the worker say about retries and results."""

    max_attempts: int
    backoff: BackoffLike
    result_ttl_ms: int
    retry_on: tuple[type[BaseException], ...] = ()
    discard_on: tuple[type[BaseException], ...] = ()
    max_crashes: int = 3


class Account(msgspec.Struct, frozen=True, gc=False):
    """The attempt's figures, for its event and its error record."""

    leased: Leased
    job_class: str
    worker: str
    wait: float
    duration: float
    total: float
    trace: str = ""
    guard: Guard | None = None
    """Of a job of which something is sealed."""


_EVENTS: dict[str, type[FailedAttempt]] = {
    "bury": JobDied,
    "discard": JobDiscarded,
    "release": JobReleased,
    "park": JobParked,
    "expire": JobExpired,
}


def decide(outcome: Outcome, policy: Policy, account: Account) -> AttemptEnd | None:
    """What follows from an outcome; None where nothing may be told to the store."""
    if isinstance(outcome, Completed):
        return _complete(outcome, policy, account)
    if isinstance(outcome, Stopped):
        return _end(account, outcome.verb, _EVENTS[outcome.verb], reason=outcome.reason)
    if isinstance(outcome, Failed):
        return _failed(outcome, policy, account)
    if isinstance(outcome, Crashed):
        return _end(
            account,
            "crash",
            JobCrashed,
            reason=outcome.message,
            error=WorkerError(outcome.message),
            number=policy.max_crashes,
        )
    return None


def _fits(error: BaseException, kinds: tuple[type[BaseException], ...], name: str) -> bool:
    """Whether an error is one of those that a filter of the class names; an isolated child has judged that itself."""
    return bool(kinds) and (isinstance(error, kinds) or name in getattr(error, "matches", ()))


def _complete(outcome: Completed, policy: Policy, account: Account) -> AttemptEnd:
    leased = account.leased
    data = b""
    if outcome.value is not None:
        try:
            data = encode_value(outcome.value, "the result")
            if account.guard is not None:
                data = account.guard.result(data)
        except SerializationError as error:
            # The work is done: running it again would do it twice, and hiding the fault would lose the result.
            return _failed(Failed(error, "decode", for_good=True), policy, account)
    event = JobCompleted(
        leased.id,
        leased.queue,
        account.job_class,
        leased.attempt,
        account.worker,
        account.wait,
        account.duration,
        account.total,
        account.trace,
    )
    return AttemptEnd(Ending("complete", leased.queue, leased.id, leased.token, policy.result_ttl_ms, "", data), event)


def _failed(outcome: Failed, policy: Policy, account: Account) -> AttemptEnd:
    error = outcome.error
    if isinstance(error, Snooze):
        delay = error.delay
        return _end(account, "snooze", JobSnoozed, reason=clip(error), delay=delay)
    if isinstance(error, Discard) or _fits(error, policy.discard_on, "discard_on"):
        return _end(account, "discard", JobDiscarded, reason=clip(str(error) or type(error).__name__), error=error)
    if not is_last(outcome, policy, account.leased.attempt):
        try:
            delay = _delay(error, policy, account.leased.attempt)
        except Exception as broken:  # backoff() is the user's code; a fault there must not lose the job
            return _end(account, "bury", JobDied, reason="backoff", error=InvalidOption(f"backoff failed: {broken!r}"))
        reason = "requested" if isinstance(error, Retry) else outcome.reason
        return _end(account, "retry", JobRetried, reason=reason, error=error, delay=delay)
    return _end(
        account, "bury", JobDied, reason="requested" if isinstance(error, Fail) else outcome.reason, error=error
    )


def is_last(outcome: Failed, policy: Policy, attempt: int) -> bool:
    """Whether this failure ends the job as a dead letter."""
    error = outcome.error
    if isinstance(error, (Snooze, Discard)) or _fits(error, policy.discard_on, "discard_on"):
        return False
    if outcome.for_good or isinstance(error, Fail) or attempt >= policy.max_attempts:
        return True
    if not policy.retry_on or isinstance(error, (Retry, JobTimeout)):
        return False
    return not _fits(error, policy.retry_on, "retry_on")


def last_error(outcome: Outcome, policy: Policy, leased: Leased) -> BaseException | None:
    """What the ``failed`` hook is to be told, where the job ends as a dead letter by this outcome."""
    if isinstance(outcome, Failed):
        return outcome.error if is_last(outcome, policy, leased.attempt) else None
    if isinstance(outcome, Crashed) and leased.crashes + 1 >= policy.max_crashes:
        return ExecutionFailed(
            f"{outcome.message}; it was crash {leased.crashes + 1}, max_crashes is {policy.max_crashes}"
        )
    return None


def _delay(error: BaseException, policy: Policy, attempt: int) -> float:
    if isinstance(error, Retry) and error.delay is not None:
        return error.delay
    return delay_seconds(policy.backoff, attempt, error)


def _end(
    account: Account,
    verb: str,
    kind: type[FailedAttempt],
    *,
    reason: str,
    error: BaseException | None = None,
    delay: float | None = None,
    number: int = 0,
) -> AttemptEnd:
    leased = account.leased
    error_type = message = trace = ""
    data = b""
    if account.guard is not None:
        reason = account.guard.scrub(reason)
    if error is not None:
        error_type, message, trace = describe(error)
        if account.guard is not None:
            message, trace = account.guard.scrub(message), account.guard.scrub(trace)
        data = error_entry(
            error_type, message, trace, worker=account.worker, attempt=leased.attempt, ran=account.duration,
            span=account.trace,
        )  # fmt: skip
    fields: tuple[Any, ...] = (*_figures(account), reason, error_type, message, trace)
    event: AttemptEnded = kind(*fields, *(() if delay is None else (delay,)))
    number = number if delay is None else round(delay * 1000)
    return AttemptEnd(Ending(verb, leased.queue, leased.id, leased.token, number, reason, data, account.trace), event)


def lost(account: Account) -> AttemptLost:
    """The event for an attempt that ended after its lease was lost."""
    return AttemptLost(*_figures(account))


def _figures(account: Account) -> tuple[Any, ...]:
    """The members that every ``AttemptEnded`` begins with."""
    leased = account.leased
    return (
        leased.id, leased.queue, account.job_class, leased.attempt, account.worker, account.wait, account.duration,
        account.total, account.trace,
    )  # fmt: skip


def describe(error: BaseException) -> tuple[str, str, str]:
    """Type, message and traceback as bounded text. A ``__str__`` that raises does not stop it."""
    if isinstance(error, ExecutionFailed) and error.error_type:  # it happened in a child and came here as text
        return error.error_type, str(error), error.traceback
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except Exception as broken:  # the user's exception class may fail at anything
        message = f"(its message could not be had: {type(broken).__name__})"
    try:
        trace = "".join(tb.format_exception(error)).encode("utf-8", "replace").decode()
    except Exception:
        trace = ""
    return (
        name,
        clip(message, MAX_MESSAGE),
        trace if len(trace) <= MAX_TRACEBACK else "...\n" + trace[-MAX_TRACEBACK:],
    )
