"""The synchronous twin of ``QueueManager``, for code without an event loop: ``from rf_jobs.sync import QueueManager``.

The names and parameters are those of the async manager; each method waits for its answer. The work is done by the async
manager on the process's background loop (docs/decisions/0002-sync-portal.md), so threads may share one and their dispatches
go together.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Self, TypeVar
from uuid import UUID

from rf_jobs.client.consumer import LeasedJob
from rf_jobs.client.manager import QueueManager as AsyncQueueManager
from rf_jobs.client.manager import settings_for
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.portal import portal
from rf_jobs.core.inspector import Filters
from rf_jobs.core.records import JobRecord, Progress, QueueInfo, WorkerInfo
from rf_jobs.model.job import Job
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.timing import Duration

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


class QueueManager:
    """See ``rf_jobs.QueueManager``; close it with ``close`` or ``with``. After a fork a child starts a connection of its
    own at its first call."""

    def __init__(self, target: str | Settings | None = None, *, namespace: str | None = None) -> None:
        self.settings = settings_for(target, namespace)
        self._closed = False

    @classmethod
    def connect(cls, target: str | Settings | None = None, *, namespace: str | None = None) -> Self:
        """A manager that has made contact; raises as the async one does."""
        manager = cls(target, namespace=namespace)
        manager._run(lambda async_one: async_one.store.connect())
        return manager

    def _run(self, make: Callable[[AsyncQueueManager], Coroutine[Any, Any, T]]) -> T:
        here = portal()

        async def call() -> T:
            manager = here.manager((id(self), "sync"), lambda: AsyncQueueManager(self.settings))
            return await make(manager)

        return here.call(call)

    def close(self) -> None:
        """Close the connections; later calls raise ``BackendError``."""
        if not self._closed:
            self._closed = True
            self._run(lambda m: m.aclose())

    def __enter__(self) -> Self:
        self._run(lambda m: m.store.connect())
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
        async with AsyncQueueManager(self.settings) as manager:
            return await manager.send(job, choices)

    def send_blocking(self, job: Job, choices: Choices, timeout: float | None) -> UUID:
        """What ``Pending.sync`` calls."""
        return self._run(lambda m: m.send(job, choices))

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

    def wait(self, job_id: UUID | str, timeout: float | None = None) -> Any:
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
