"""``inline()``: a dispatch runs its job at once, in this process, by the worker's own rules."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from rf_jobs.client.dispatcher import Asked
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.workflow.groups import Group
from rf_jobs.core.records import Progress
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model import codec
from rf_jobs.model.crypto import Keyring
from rf_jobs.model.events import EventBus, FailedAttempt
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.model.notes import Notes
from rf_jobs.store.shapes import Leased
from rf_jobs.testing.attempts import WORKER, Attempts, CallerThread, on_a_loop
from rf_jobs.testing.dispatched import Dispatched
from rf_jobs.testing.fake import FakeQueue
from rf_jobs.testing.group_runs import GroupRuns, RanGroup
from rf_jobs.testing.recorder import Kept
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ExecutionFailed, JobError, JobNotFound, WorkerError
from rf_jobs.words.ids import job_id as as_job_id
from rf_jobs.words.states import State
from rf_jobs.words.timing import Duration, now_ms
from rf_jobs.worker.threads import Threads

T = TypeVar("T")
MAX_DEPTH = 50
"""Dispatches inside of runs; deeper is a job that dispatches itself for ever."""
MAX_SNOOZES = 100
_inside: contextvars.ContextVar[_Nest | None] = contextvars.ContextVar("rf_jobs_inline", default=None)
_ENDS = {
    "complete": State.COMPLETED,
    "bury": State.DEAD,
    "discard": State.CANCELLED,
    "expire": State.EXPIRED,
    "park": State.PARKED,
}
_AGAIN = ("retry", "snooze", "release")


@dataclass
class _Nest:
    """How deep one dispatch is inside of another's run."""

    depth: int
    faults: list[WorkerError]
    """Of the test, not of a job: they end all runs around, which would try again for long."""

    def end(self, why: str) -> NoReturn:
        """Say that this can't go on."""
        fault = WorkerError(f"{why}, or drain()")
        self.faults.append(fault)
        raise fault


@dataclass
class Ran:
    """What became of a job that ran inline."""

    dispatched: Dispatched[Any]
    state: State = State.READY
    attempt: int = 0
    """How many attempts there were."""
    result: Any = None
    """What the handler returned, as ``manager.wait`` answers with it: plain data."""
    error: BaseException | None = None
    """What the last failed attempt raised."""
    reason: str = ""
    """Why it ended, where there is something to say."""
    delays: list[float] = field(default_factory=list)
    """Seconds that a real job would have waited before each further run."""
    notes: Notes = field(default_factory=Notes)
    """What its attempts logged, told and saved."""


class InlineQueue(FakeQueue):
    """A ``FakeQueue`` that also runs what is dispatched to it, before the dispatch returns; ``inline()`` makes one.

    Payloads go through the wire format, retries follow at once without their delay, ``Retry``, ``Snooze``, ``Discard`` and
    ``Fail`` do what they do in a worker, timeouts hold, middlewares wrap, events are emitted, results are kept. A plain
    function runs in a thread; under ``.sync()`` in the thread that called it. ``executor="process"`` runs in this process.
    """

    def __init__(
        self,
        target: str | Settings | None = None,
        *,
        raise_errors: bool = True,
        delayed: bool = True,
        namespace: str | None = None,
        middleware: Sequence[Middleware] | MiddlewareStack = (),
        bus: EventBus | None = None,
    ) -> None:
        super().__init__(target, namespace=namespace, middleware=middleware, bus=bus)
        self._raises = raise_errors
        self._delayed = delayed
        self._ran: dict[UUID, Ran] = {}
        self._ran_groups: dict[UUID, RanGroup] = {}

    # --- dispatch ------------------------------------------------------------------------------------------------

    async def send(self, job: Job, choices: Choices) -> UUID:
        """Record one and run it; raises what its last attempt raised, unless that is kept."""
        return (await self._send([(job, choices)], Threads(1)))[0]

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        """The same for ``.sync()``. It returns when the job has ended, however long its own timeout allows."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            threads = CallerThread()
            return threads.serve(on_a_loop(lambda: self._send([(job, choices)], threads)))[0]
        # A loop runs in this thread, so plain functions get another.
        return on_a_loop(lambda: self._send([(job, choices)], Threads(1))).result()[0]

    async def dispatch_many(self, jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """Record all, then run all, in order; raises what they raised once the last has run."""
        asked = [job.take() if isinstance(job, Pending) else Pending[Any](self, job).take() for job in jobs]

        async def send() -> list[UUID]:
            return await self._send(asked, Threads(1))

        result: list[UUID] = await self.middleware.batch(len(asked), send) if asked else []
        return result

    async def _send(self, asked: Sequence[Asked], threads: Threads) -> list[UUID]:
        answers = self._recorder.record(asked)
        try:
            fates = [await self._run_kept(kept, threads) for kept in answers if self._is_due(kept)]
        finally:
            threads.close()
        self._raise([ran.error for ran in fates if ran.state is State.DEAD and ran.error is not None])
        return [kept.id for kept in answers]

    async def send_group(self, group: Group) -> UUID:
        """Record a batch or a chain, and run it: its members one after the other, a failure stops what it stops in a worker,
        then the callbacks."""
        kept = await self._record_group(group)
        if kept is not None:
            threads = Threads(1)

            async def call(job: Job, choices: Choices) -> None:
                for one in self._recorder.record([(job, choices)]):
                    ran = await self._run_kept(one, threads)
                    if ran.state is State.DEAD and ran.error is not None:
                        runs.errors.append(ran.error)

            runs = GroupRuns(self._ran_groups, lambda one: self._run_kept(one, threads), self._skip, call)
            try:
                await runs.run(group, iter(kept))
            finally:
                threads.close()
            self._raise(runs.errors)
        return group.id

    def _is_due(self, kept: Kept) -> bool:
        record = kept.record
        return record is not None and (self._delayed or not (record.delay or record.at))

    def _raise(self, errors: Sequence[BaseException]) -> None:
        if errors and self._raises:
            raise errors[0] if len(errors) == 1 else BaseExceptionGroup(f"{len(errors)} jobs died", errors)

    def _skip(self, kept: Kept) -> None:
        if kept.record is not None:
            self._ran[kept.id] = Ran(kept.record, State.CANCELLED, reason="a member of its group failed")

    async def _run_kept(self, kept: Kept, threads: Threads) -> Ran:
        """Run what was recorded, if what it waits for lets it."""
        if kept.record is None:
            return self.ran(kept.id)
        ran = self._ran[kept.id] = Ran(kept.record)
        parents = [self._ran[parent] for parent in kept.record.depends_on if parent in self._ran]
        failed = [parent for parent in parents if parent.state is not State.COMPLETED]
        extra = kept.record.choices.extra
        if failed and extra is not None and extra.on_failure != "run":
            ran.state = State.DEAD if extra.on_failure == "dead" else State.CANCELLED
            ran.reason = f"job {failed[0].dispatched.id}, which it waits for, ended as {failed[0].state}"
            return ran
        ran.notes.inputs = {str(p.dispatched.id): p.result for p in parents if p.result is not None}
        await self._run(ran, kept.data, threads)
        return ran

    async def _run(self, ran: Ran, data: bytes, threads: Threads) -> None:
        """All attempts of one job."""
        record, outer = ran.dispatched, _inside.get()
        nest = _Nest(1, []) if outer is None else _Nest(outer.depth + 1, outer.faults)
        if nest.depth > MAX_DEPTH:
            nest.end(
                f"dispatches are nested {MAX_DEPTH} deep, the last of a {type(record.job).__qualname__}: jobs that run inline"
                " seem to dispatch each other for ever; use FakeQueue"
            )
        ran.notes.manager = self
        attempts = Attempts(self, ran.notes, threads)
        before = _inside.set(nest)
        try:
            await self._attempts(ran, attempts, _first_lease(record, data), nest)
        finally:
            _inside.reset(before)

    async def _attempts(self, ran: Ran, attempts: Attempts, leased: Leased, nest: _Nest) -> None:
        snoozes = 0
        while True:
            end = await attempts.run(leased)
            if nest.faults:
                raise nest.faults[0]
            if end is None:
                raise WorkerError(
                    f"an attempt of {ran.dispatched} ended in nothing; an inline job can't lose its lease"
                )
            ran.attempt = leased.attempt
            self.bus.emit(end.event)
            if not _follow(ran, end, attempts.raised, self.protection.keyring):
                self._recorder.locks.ended(ran.dispatched.id)
                return
            retries = end.ending.verb == "retry"
            snoozes = 0 if retries else snoozes + 1
            if snoozes > MAX_SNOOZES:
                nest.end(
                    f"{ran.dispatched} asked {snoozes} times in a row to run later, and inline there is no later; make true"
                    " what it waits for"
                )
            leased = _next_lease(leased, leased.attempt + 1 if retries else leased.attempt)

    # --- what became of them -------------------------------------------------------------------------------------

    def ran(self, job_id: UUID | str) -> Ran:
        """What became of a job. Raises ``JobNotFound`` for one that did not run here."""
        found = self._ran.get(as_job_id(job_id))
        if found is None:
            raise JobNotFound(f"no job {job_id} ran inline; {len(self._ran)} did")
        return found

    async def wait(self, job_id: UUID | str, timeout: Duration | None = None) -> Any:
        """The result of a job that ran; raises as ``QueueManager.wait`` does."""
        ran = self.ran(job_id)
        if ran.state is State.COMPLETED:
            return ran.result
        what = f"job {job_id} ended as {ran.state}" + (f": {ran.reason}" if ran.reason else "")
        if ran.state is not State.DEAD:
            raise JobError(what)
        if isinstance(ran.error, JobError):
            raise ran.error
        kind = type(ran.error).__qualname__
        raise ExecutionFailed(
            f"job {job_id} is a dead letter after {ran.attempt} attempts: {kind}: {ran.error}", error_type=kind
        ) from ran.error

    def batch(self, batch_id: UUID | str) -> Any:
        """A batch or chain that ran, or runs: it answers what its callbacks may ask. Raises ``JobNotFound``."""
        found = self._ran_groups.get(as_job_id(batch_id))
        if found is None:
            raise JobNotFound(f"no batch {batch_id} ran inline; {len(self._ran_groups)} did")
        return found

    async def job_progress(self, job_id: UUID | str) -> Progress:
        """What the job said last of how far it is. Raises ``JobNotFound``."""
        told = self.ran(job_id).notes.progress
        return Progress(*told[-1]) if told else Progress()

    def forget(self) -> None:
        """Forget what was dispatched and ran so far."""
        super().forget()
        self._ran, self._ran_groups = {}, {}


def inline(*, raise_errors: bool = True, delayed: bool = True) -> InlineQueue:
    """Have ``Queue`` run what is dispatched at once, in this process, until the end of the ``with`` block.

    ``raise_errors``: a dispatch raises what the last attempt of its job raised; otherwise the error is kept, see
    ``queue.ran(job_id)``. ``delayed``: jobs that were to run later run at once too; otherwise they are only recorded. All
    that ``FakeQueue`` can assert holds here as well.
    """
    return InlineQueue(raise_errors=raise_errors, delayed=delayed)


def _follow(ran: Ran, end: AttemptEnd, raised: BaseException | None, keyring: Keyring) -> bool:
    """Note how an attempt ended; whether another follows."""
    ending, event = end.ending, end.event
    ran.reason = ending.reason
    if isinstance(event, FailedAttempt) and event.error_type:
        # Not all that fails was raised by the handler: its result may be no JSON, its backoff may be broken.
        ran.error = raised or ExecutionFailed(event.message, error_type=event.error_type, traceback=event.traceback)
    if ending.verb in _AGAIN:
        ran.delays.append(ending.number / 1000)
        return True
    if ending.verb not in _ENDS:
        raise WorkerError(f"{ran.dispatched} ended in {ending.verb!r}, which inline() does not know; use drain()")
    ran.state = _ENDS[ending.verb]
    if ran.state is State.COMPLETED and ending.data:
        ran.result = codec.decode_value(keyring.open_value("result", str(ran.dispatched.id), ending.data))
    return False


def _first_lease(record: Dispatched[Any], data: bytes) -> Leased:
    now = now_ms()
    return Leased(str(record.id), data, record.queue, 1, 0, now, now, now, "", f"{WORKER}.{record.id}")


def _next_lease(last: Leased, attempt: int) -> Leased:
    now = now_ms()
    return Leased(
        last.id, last.data, last.queue, attempt, 0, max(now, last.epoch + 1), now, last.first_ms, "", last.token, True
    )
