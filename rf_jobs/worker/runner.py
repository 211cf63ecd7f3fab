"""Runs attempts. Each step is small: open the envelope, make the context, call the handler, say how it went.

Whatever a job does becomes an outcome; the runner lives on. It tells the store nothing, that is the finisher's: all it asks
of it is the checkpoint of an earlier attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from rf_jobs.client.offload import Offload
from rf_jobs.client.protection import parking
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model.context import JobContext, running
from rf_jobs.model.desk import Desk
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.events import EventBus, JobOverran, JobStarted
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.model.middleware import MiddlewareStack
from rf_jobs.model.sealing import Guard
from rf_jobs.words.errors import (
    BackendError,
    ExecutionFailed,
    JobError,
    JobTimeout,
    MissingKey,
)
from rf_jobs.words.timing import mono
from rf_jobs.worker.attempt import NOWHERE, Attempt
from rf_jobs.worker.job_process import JobCrash
from rf_jobs.worker.opening import Opener
from rf_jobs.worker.outcome import (
    Account,
    Completed,
    Crashed,
    Failed,
    Lost,
    Outcome,
    Policy,
    Stopped,
    decide,
    describe,
    last_error,
    lost,
)
from rf_jobs.worker.plans import Defaults, Plan, Plans
from rf_jobs.worker.threads import Threads

log = logging.getLogger("rf_jobs.worker")
ISOLATE_AFTER_CRASHES = 2


class Isolation(Protocol):
    """Runs a job in a process of its own that can be killed."""

    async def run(self, attempt: Attempt, letter: Envelope) -> Any: ...


class Runner:
    """Turns attempts into endings. Holds no state of its own between two attempts."""

    gathers = False
    """Whether a batch consumer's attempts are to be run together. Else each runs alone."""

    def __init__(
        self, *, worker: str, registry: Registry, defaults: Defaults, middleware: MiddlewareStack, bus: EventBus, desk: Desk,
        threads: Threads, isolation: Isolation, on_start: Callable[[Attempt], None], is_ending: Callable[[], bool],
        offload: Offload, captures: bool = False,
    ) -> None:  # fmt: skip
        self._worker = worker
        self._plans = Plans(defaults)
        self._middleware = middleware
        self._bus = bus
        self._desk = desk
        self._threads = threads
        self._isolation = isolation
        self._opener = Opener(registry, offload)
        self._keyring = offload.protection.keyring
        self._on_start = on_start
        self._captures = captures
        """Whether what handlers log through ``logging`` is to be kept with their jobs."""
        self._is_ending = is_ending
        """Whether a cancellation that nobody here asked for is the end of the event loop."""

    async def perform(self, attempt: Attempt) -> AttemptEnd | None:
        """Run an attempt to its end; None where its lease was lost and nothing may be told to the store, and where it is
        to run together with others, which its ``many`` then says."""
        opened = self._opener.open(attempt)
        if opened is None:
            opened = await self._opener.load(attempt)
        if isinstance(opened, Envelope):
            plan = self._plans.of(attempt.job.__job_class__, attempt.job, opened)
            if plan.many is not None and self.gathers and attempt.leased.crashes < ISOLATE_AFTER_CRASHES:
                attempt.many = plan.many
                return None
            outcome = await self._run(attempt, opened, plan)
        else:
            plan, outcome = self._plans.unknown, opened
        if isinstance(outcome, Completed):
            await self._settle_words(attempt)
            return decide(outcome, plan.policy, self._account(attempt, attempt.letter))
        return await self._conclude(attempt, outcome, plan.policy)

    async def _conclude(self, attempt: Attempt, outcome: Outcome, policy: Policy) -> AttemptEnd | None:
        """What follows from an outcome that may be a failure; the job hears of its last one."""
        account = self._account(attempt, attempt.letter)
        error = last_error(outcome, policy, attempt.leased)
        if error is not None:
            await self._tell_failed(attempt, error)
        await self._settle_words(attempt)
        end = decide(outcome, policy, account)
        if end is None:
            self._bus.emit(lost(account))
        return end

    # --- before ------------------------------------------------------------------------------------------------

    def _context(self, attempt: Attempt, letter: Envelope, policy: Policy) -> JobContext:
        leased = attempt.leased
        now_ms = attempt.now_ms
        deadline_ms = now_ms + int((attempt.deadline - attempt.fetched) * 1000)
        return JobContext(
            letter, leased.id, leased.queue, leased.attempt, policy.max_attempts, now_ms, deadline_ms, leased.epoch,
            leased.token, self._worker, self._desk, leased.previous, attempt.wait,
        )  # fmt: skip

    # --- the run -----------------------------------------------------------------------------------------------

    async def _run(self, attempt: Attempt, letter: Envelope, plan: Plan) -> Outcome:
        entry = attempt.job.__job_class__
        try:
            attempt.timeout = plan.timeout
            attempt.deadline = attempt.began + plan.timeout
            ctx = attempt.ctx = self._context(attempt, letter, plan.policy)
            if self._captures:
                running.set(ctx)
            if (attempt.leased.again or letter.aft) and (unread := await self._restore(ctx)) is not None:
                return unread
            self._on_start(attempt)
            if self._bus.wants(JobStarted):
                self._say_started(attempt, letter)
            attempt.task = attempt.slot
            if attempt.stop:  # it was told to stop between the fetch and here
                return self._interrupted(attempt)
            if self._middleware.wraps_runs:
                value = await self._middleware.run(ctx, attempt.job, lambda: self._handle(attempt, letter, entry, ctx))
            elif plan.on_loop and attempt.leased.crashes < ISOLATE_AFTER_CRASHES:
                value = await attempt.job.handle(ctx)
            else:
                value = await self._handle(attempt, letter, entry, ctx)
        except asyncio.CancelledError as error:
            return await self._settle_cancelled(attempt, error)
        except JobCrash as error:
            return self._interrupted(attempt) if attempt.stop else Crashed(str(error))
        except BaseException as error:  # whatever a job raises is the job's, SystemExit and a PanicException too
            return self._interrupted(attempt) if attempt.stop else Failed(error, reason_of(error))
        finally:
            attempt.task = None
            if self._captures:
                running.set(None)
        if attempt.stop:
            return await self._swallowed(attempt)
        return Completed(value)

    async def _settle_words(self, attempt: Attempt) -> None:
        """What it said goes before its outcome: who hears that it is over finds all of it."""
        if attempt.ctx is not None and attempt.ctx.unsent is not None:
            await self._desk.settle(attempt.ctx)

    async def _restore(self, ctx: JobContext) -> Outcome | None:
        """Give the context what an earlier attempt saved, and what the jobs before it returned; an outcome where that can't be
        had."""
        try:
            ctx.restore(
                await self._desk.load_checkpoint(ctx), await self._desk.load_inputs(ctx) if ctx.follows else None
            )
        except MissingKey as error:
            return Stopped("park", parking(error))
        except BackendError as error:  # the server's fault, and no attempt of the job
            return Stopped("release", f"what was kept for it could not be read: {error}"[:200])
        return None

    def _say_started(self, attempt: Attempt, letter: Envelope) -> None:
        leased = attempt.leased
        self._bus.emit(JobStarted(leased.id, leased.queue, letter.job, leased.attempt, self._worker, attempt.wait))

    def _handle(self, attempt: Attempt, letter: Envelope, entry: JobClass, ctx: JobContext) -> Awaitable[Any]:
        # A class of a script that is run as __main__ can't be imported by another process.
        suspect = attempt.leased.crashes >= ISOLATE_AFTER_CRASHES and entry.type.__module__ != "__main__"
        if entry.options.executor == "process" or suspect:
            return self._isolation.run(attempt, letter)
        if entry.is_async:
            result: Awaitable[Any] = attempt.job.handle(ctx)
            return result
        return self._in_thread(attempt, ctx)

    async def _in_thread(self, attempt: Attempt, ctx: JobContext) -> Any:
        value = await self._threads.run(lambda: attempt.job.handle(ctx))
        return await value if asyncio.iscoroutine(value) else value

    # --- after -------------------------------------------------------------------------------------------------

    async def _settle_cancelled(self, attempt: Attempt, error: BaseException) -> Outcome:
        if not attempt.stop and self._is_ending():
            raise error
        _forget_cancellation()
        # Where nobody told it to stop the handler let a CancelledError of its own escape: a failure like any other.
        return self._interrupted(attempt) if attempt.stop else Failed(error)

    async def _swallowed(self, attempt: Attempt) -> Outcome:
        """It was told to stop and returned all the same: a cancellation was caught, or came too late."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            task.uncancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)  # a cancellation that is still on its way arrives here and nowhere else
            if attempt.stop == "timeout":
                leased = attempt.leased
                self._bus.emit(
                    JobOverran(
                        leased.id,
                        leased.queue,
                        attempt.entry.name if attempt.entry else "",
                        self._worker,
                        mono() - attempt.began,
                    )
                )
        return self._interrupted(attempt)

    def _interrupted(self, attempt: Attempt) -> Outcome:
        if attempt.stop == "timeout":
            return Failed(JobTimeout(attempt.timeout), "timeout")
        if attempt.stop == "lost":
            return Lost()
        if attempt.stop == "cancelled":
            return Stopped("discard", "cancelled")
        return Stopped("release", "shutdown")

    def _account(self, attempt: Attempt, letter: Envelope | None) -> Account:
        now = mono()
        took = now - attempt.began
        total = max(0.0, (attempt.now_ms - attempt.leased.first_ms) / 1000) + now - attempt.fetched
        return Account(
            attempt.leased,
            letter.job if letter else "",
            self._worker,
            attempt.wait,
            took,
            total,
            attempt.ctx.trace if attempt.ctx is not None else "",
            None if letter is None or letter.enc is None else self._guard(attempt, letter),
        )

    def _guard(self, attempt: Attempt, letter: Envelope | None) -> Guard | None:
        if letter is None or letter.enc is None:
            return None
        return Guard(letter, attempt.job, self._keyring)

    async def tell_buried(self, attempt: Attempt, error: JobError) -> None:
        """Call ``failed`` of a job that is buried already: it has no lease, and what the hook says is not kept."""
        opened = self._opener.open(attempt)
        if opened is None:
            opened = await self._opener.load(attempt)
        if isinstance(opened, Envelope):
            plan = self._plans.of(attempt.job.__job_class__, attempt.job, opened)
            attempt.timeout = plan.timeout
            attempt.deadline = attempt.began + plan.timeout
            attempt.ctx = self._context(attempt, opened, plan.policy)
            await self._tell_failed(attempt, error)

    async def _tell_failed(self, attempt: Attempt, cause: BaseException) -> None:
        """Call the job's ``failed`` hook. It has as long as the job had, and can't change what happens, whatever it
        raises."""
        if attempt.entry is None or not attempt.entry.has_failed or attempt.ctx is None or attempt.job is None:
            return
        error = cause
        if not isinstance(error, JobError):
            kind, message, trace = describe(error)
            error = ExecutionFailed(f"{kind}: {message}", error_type=kind, traceback=trace)
            error.__cause__ = cause
        limit = attempt.timeout or self._plans.unknown.timeout
        attempt.deadline = mono() + limit
        if attempt.place != NOWHERE:
            self._on_start(attempt)  # so that whoever enforces deadlines knows
        try:
            async with asyncio.timeout(limit):
                await attempt.job.failed(attempt.ctx, error)
        except BaseException as raised:
            if isinstance(raised, asyncio.CancelledError) and self._is_ending():
                raise
            _forget_cancellation()
            guard = self._guard(attempt, attempt.letter)
            if guard is None:
                log.exception("failed() of job %s (%s) raised", attempt.leased.id, attempt.entry.name)
            else:
                said = guard.scrub(describe(raised)[2])
                log.error("failed() of job %s (%s) raised\n%s", attempt.leased.id, attempt.entry.name, said)  # noqa: TRY400


def _forget_cancellation() -> None:
    """The task that a slot is goes on with the next job."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


def reason_of(error: BaseException) -> str:
    """Why an attempt failed that raised this: timeout or exception."""
    return "timeout" if isinstance(error, JobTimeout) else "exception"
