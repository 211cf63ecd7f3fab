"""The synchronous twin of ``QueueManager``, for code without an event loop: ``from rf_jobs.sync import QueueManager``.

The names and parameters are those of the async manager; each method waits for its answer. The work is done by the async
manager on the process's background loop (docs/decisions/0002-sync-portal.md), so threads may share one and their dispatches
go together.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, Self, TypeVar, Unpack
from uuid import UUID

from rf_jobs.client.consumer import LeasedJob
from rf_jobs.client.manager import QueueManager as AsyncQueueManager
from rf_jobs.client.manager import settings_for, stack_of
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.portal import Counterpart
from rf_jobs.client.schedules import Schedules
from rf_jobs.core.inspector import Filters
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import JobRecord, Progress, QueueInfo, WorkerInfo
from rf_jobs.core.schedules import ScheduleInfo
from rf_jobs.core.updates import JobUpdate
from rf_jobs.model.events import EventBus
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.model.schedule import ScheduleOptions
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.timing import Duration, seconds

T = TypeVar("T")


class LeasedSyncJob:
    """A leased job; see ``rf_jobs.client.consumer.LeasedJob``."""

    def __init__(self, call: Callable[[Callable[[], Coroutine[Any, Any, None]]], None], leased: LeasedJob) -> None:
        self._call = call
        self._leased = leased
        self.id = leased.id
        self.queue = leased.queue
        self.attempt = leased.attempt
        self.fencing_token = leased.fencing_token
        self.envelope = leased.envelope

    @property
    def job(self) -> Any:
        """The job. Raises ``UnknownJobClass`` or ``SerializationError``."""
        return self._leased.job

    def complete(self, result: Any = None) -> None:
        """It is done."""
        self._call(lambda: self._leased.complete(result))

    def retry(self, delay: Duration = 0, reason: str = "") -> None:
        """Again, after ``delay``."""
        self._call(lambda: self._leased.retry(delay, reason))

    def fail(self, reason: str) -> None:
        """To the dead letters."""
        self._call(lambda: self._leased.fail(reason))

    def release(self) -> None:
        """Hand it back untouched."""
        self._call(self._leased.release)

    def extend(self, by: Duration | None = None) -> None:
        """Hold the lease for longer."""
        self._call(lambda: self._leased.extend(by))


class _Inside:
    """What lives on the background loop for one manager: the async one, and what was entered with it."""

    def __init__(self, make: Callable[[], AsyncQueueManager]) -> None:
        self.manager = make()
        self.entered = AsyncExitStack()

    async def aclose(self) -> None:
        """Leave what was entered, then close the manager."""
        try:
            await self.entered.aclose()
        finally:
            await self.manager.aclose()


class SyncSchedules:
    """Schedules at run time; see ``rf_jobs.Schedules``."""

    def __init__(self, run: Callable[[Callable[[Schedules], Coroutine[Any, Any, Any]]], Any]) -> None:
        self._run = run

    def upsert(
        self, name: str, job: Job, *, cron: str | None = None, every: Duration | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> bool:  # fmt: skip
        """Add a schedule, or change the one of this name; answers whether anything is new."""
        return bool(self._run(lambda s: s.upsert(name, job, cron=cron, every=every, **options)))

    def list(self, offset: int = 0, limit: int = 100) -> Sequence[ScheduleInfo]:
        """A page of schedules, the next to run first."""
        found: Sequence[ScheduleInfo] = self._run(lambda s: s.list(offset, limit))
        return found

    def get(self, name: str) -> ScheduleInfo:
        """One schedule."""
        found: ScheduleInfo = self._run(lambda s: s.get(name))
        return found

    def count(self) -> int:
        """How many there are."""
        return int(self._run(lambda s: s.count()))

    def schedulers(self) -> int:
        """How many schedulers live."""
        return int(self._run(lambda s: s.schedulers()))

    def pause(self, name: str) -> bool:
        """Let it rest."""
        return bool(self._run(lambda s: s.pause(name)))

    def resume(self, name: str) -> bool:
        """Let it run again."""
        return bool(self._run(lambda s: s.resume(name)))

    def trigger(self, name: str) -> UUID:
        """Have it run now, out of turn."""
        found: UUID = self._run(lambda s: s.trigger(name))
        return found

    def remove(self, name: str) -> None:
        """Remove it."""
        self._run(lambda s: s.remove(name))


class QueueManager:
    """See ``rf_jobs.QueueManager``; close it with ``close`` or ``with``. After a fork a child starts a connection of its
    own at its first call. Middleware and the subscribers of ``bus`` are called on the background thread."""

    def __init__(
        self,
        target: str | Settings | None = None,
        *,
        namespace: str | None = None,
        middleware: Sequence[Middleware] | MiddlewareStack = (),
        bus: EventBus | None = None,
        retry_for: Duration = 5.0,
    ) -> None:
        self.settings = settings_for(target, namespace)
        self.bus = bus or EventBus()
        self.middleware = stack_of(middleware)
        self._make = partial(
            AsyncQueueManager, self.settings, middleware=self.middleware, bus=self.bus,
            retry_for=seconds(retry_for, "retry_for"),
        )  # fmt: skip
        self._inside = Counterpart(self, partial(_Inside, self._make))
        self.schedules = SyncSchedules(lambda use: self._run(lambda m: use(m.schedules)))

    @classmethod
    def connect(cls, target: str | Settings | None = None, **options: Any) -> Self:
        """A manager that has made contact; raises as the async one does."""
        return cls(target, **options).__enter__()

    def _run(self, use: Callable[[AsyncQueueManager], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        return self._inside.call(lambda inside: use(inside.manager), timeout)

    def enter(self, make: Callable[[AsyncQueueManager], AbstractAsyncContextManager[T]]) -> T:
        """Enter an async context on the background loop, for the async manager that works there; ``close`` leaves it.

        So telemetry is switched on: ``manager.enter(lambda m: telemetry(m, m.settings.telemetry))``. A forked child
        enters its own.
        """
        return self._inside.call(lambda inside: inside.entered.enter_async_context(make(inside.manager)))

    def close(self) -> None:
        """Close the connections; later calls raise ``BackendError``."""
        self._inside.close().result()

    def __enter__(self) -> Self:
        try:
            self._run(lambda m: m.store.connect())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- dispatch ------------------------------------------------------------------------------------------------

    def dispatch(self, job: Job) -> Pending[Any]:
        """A builder; its ``sync()`` dispatches and answers with the job's id."""
        return Pending(self, job)

    def dispatch_to(self, job: Job, queue: str) -> Pending[Any]:
        """``dispatch(job).on_queue(queue)``."""
        return self.dispatch(job).on_queue(queue)

    def dispatch_later(self, job: Job, delay: Duration) -> Pending[Any]:
        """``dispatch(job).delay(delay)``."""
        return self.dispatch(job).delay(delay)

    def dispatch_many(self, jobs: Iterable[Job | Pending[Any]]) -> list[UUID]:
        """Dispatch many jobs at once."""
        asked = list(jobs)
        return self._run(lambda m: m.dispatch_many(asked))

    async def send(self, job: Job, choices: Choices) -> UUID:
        """For an await of the builder, should there be a loop after all."""
        self._inside.check()
        async with self._make() as manager:
            return await manager.send(job, choices)

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        """What ``Pending.sync`` calls."""
        return self._run(lambda m: m.send(job, choices), timeout)

    def handle(self, job_id: UUID | str) -> Any:
        """The job's record; there is nothing to await here."""
        return self.job(job_id)

    # --- queues --------------------------------------------------------------------------------------------------

    def size(self, queue: str) -> int:
        """How many jobs are ready."""
        return self._run(lambda m: m.size(queue))

    def counts(self, queue: str) -> dict[str, int]:
        """How many jobs are in each state."""
        return self._run(lambda m: m.counts(queue))

    def clear(self, queue: str) -> int:
        """Remove all jobs that wait."""
        return self._run(lambda m: m.clear(queue))

    def pause(self, queue: str) -> bool:
        """Stop all workers from fetching from it."""
        return self._run(lambda m: m.pause(queue))

    def resume(self, queue: str) -> bool:
        """Let workers fetch from it again."""
        return self._run(lambda m: m.resume(queue))

    def queues(self) -> list[QueueInfo]:
        """All queues."""
        return self._run(lambda m: m.queues())

    def queue(self, name: str) -> QueueInfo:
        """One queue."""
        return self._run(lambda m: m.queue(name))

    def workers(self) -> list[WorkerInfo]:
        """Live workers."""
        return self._run(lambda m: m.workers())

    def pop_batch(self, queue: str, count: int, *, lease: Duration = 60) -> list[LeasedSyncJob]:
        """Lease jobs by hand."""
        leased = self._run(lambda m: m.pop_batch(queue, count, lease=lease))
        return [LeasedSyncJob(lambda make: self._run(lambda _: make()), one) for one in leased]

    # --- jobs ----------------------------------------------------------------------------------------------------

    def job(self, job_id: UUID | str) -> JobRecord:
        """All that is known of a job."""
        return self._run(lambda m: m.job(job_id))

    def job_progress(self, job_id: UUID | str) -> Progress:
        """How far a job is."""
        return self._run(lambda m: m.job_progress(job_id))

    def job_logs(self, job_id: UUID | str, *, after: int = 0) -> list[LogLine]:
        """The lines of a job's log."""
        return self._run(lambda m: m.job_logs(job_id, after=after))

    def watch(self, job_id: UUID | str) -> Generator[JobUpdate]:
        """Follow a job until it is over."""
        updates: AsyncGenerator[JobUpdate] | None = None

        async def following(manager: AsyncQueueManager) -> JobUpdate | None:
            nonlocal updates
            if updates is None:
                updates = manager.watch(job_id)
            return await anext(updates, None)

        async def end(_: AsyncQueueManager) -> None:
            if updates is not None:
                await updates.aclose()

        try:
            while (update := self._run(following)) is not None:
                yield update
        finally:
            self._run(end)

    def wait(self, job_id: UUID | str, timeout: Duration | None = None) -> Any:
        """Wait until a job ends."""
        return self._run(lambda m: m.wait(job_id, timeout))

    def cancel(self, job_id: UUID | str, reason: str = "") -> bool:
        """Cancel a job."""
        return self._run(lambda m: m.cancel(job_id, reason))

    # --- dead letters --------------------------------------------------------------------------------------------

    def failed_jobs(
        self, queue: str | None = None, offset: int = 0, limit: int = 50, filters: Filters | None = None
    ) -> list[JobRecord]:
        """A page of dead letters."""
        return self._run(lambda m: m.failed_jobs(queue, offset, limit, filters))

    def retry_failed(self, job_id: UUID | str) -> bool:
        """Replay one."""
        return self._run(lambda m: m.retry_failed(job_id))

    def retry_all_failed(self, filters: Filters | None = None) -> int:
        """Replay those that fit."""
        return self._run(lambda m: m.retry_all_failed(filters))

    def forget_failed(self, job_id: UUID | str) -> bool:
        """Remove one."""
        return self._run(lambda m: m.forget_failed(job_id))

    def purge_failed(self, older_than: Duration, filters: Filters | None = None) -> int:
        """Remove those that died longer ago."""
        return self._run(lambda m: m.purge_failed(older_than, filters))

    def sweep_payloads(self) -> int:
        """Remove offloaded payloads that no job needs any more."""
        return self._run(lambda m: m.sweep_payloads())
