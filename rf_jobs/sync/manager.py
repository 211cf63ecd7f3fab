"""``QueueManager`` without an event loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from functools import partial
from typing import Any, Self, TypeVar
from uuid import UUID

from rf_jobs.client.manager import QueueManager as AsyncQueueManager
from rf_jobs.client.manager import settings_for, stack_of
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.portal import Counterpart
from rf_jobs.client.workflow.groups import Batch, Chain
from rf_jobs.client.workflow.records import BatchRecord
from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import JobRecord, Progress
from rf_jobs.core.updates import JobUpdate
from rf_jobs.model.events import EventBus
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import Middleware, MiddlewareStack
from rf_jobs.sync.parts import LeasedSyncJob, SyncBatchHandle, SyncLimits, SyncSchedules
from rf_jobs.sync.steering import SyncSteering
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import BackendError
from rf_jobs.words.ids import job_id as as_job_id
from rf_jobs.words.timing import Duration, seconds

T = TypeVar("T")


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


class QueueManager(SyncSteering):
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
        self.limits = SyncLimits(lambda use: self._run(lambda m: use(m.limits)))
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
            with suppress(BackendError):  # it was closed before
                self._run(end)

    def wait(self, job_id: UUID | str, timeout: Duration | None = None) -> Any:
        """Wait until a job ends."""
        return self._run(lambda m: m.wait(job_id, timeout))

    # --- batches and chains ------------------------------------------------------------------------------------------

    def send_group(self, group: Batch | Chain) -> UUID:
        """Dispatch a batch or a chain with all that is in it."""
        return self._run(lambda m: m.send_group(group))

    def batch(self, batch_id: UUID | str) -> SyncBatchHandle:
        """A batch, or a chain, that was dispatched before."""
        known = as_job_id(batch_id)
        return SyncBatchHandle(lambda use: self._run(lambda m: use(m.batch(known))), known)

    def batches(self, offset: int = 0, limit: int = 50) -> list[BatchRecord]:
        """A page of the batches and chains that are known, the newest first."""
        return self._run(lambda m: m.batches(offset, limit))

    def unique_holder(self, pending: Pending[Any]) -> UUID | None:
        """Which job holds the unique lock that this dispatch would ask for."""
        return self._run(lambda m: m.unique_holder(pending))
