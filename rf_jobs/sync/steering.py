"""What an operator does with queues, waiting jobs and dead letters, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from rf_jobs.client.manager import QueueManager as AsyncQueueManager
from rf_jobs.core.explain import Explanation
from rf_jobs.core.inspector import Filters
from rf_jobs.core.records import JobRecord, QueueInfo, WorkerInfo
from rf_jobs.core.searching import SearchResult
from rf_jobs.words.states import Priority, State
from rf_jobs.words.timing import Duration

T = TypeVar("T")


class SyncSteering:
    """``Steering`` without an event loop; each method waits for the async one's answer."""

    def _run(self, use: Callable[[AsyncQueueManager], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        raise NotImplementedError

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

    # --- classes, tags and limits ----------------------------------------------------------------------------------

    def pause_class(self, job_class: type | str, for_: Duration | None = None) -> bool:
        """Let no job of a class start."""
        return self._run(lambda m: m.pause_class(job_class, for_))

    def resume_class(self, job_class: type | str) -> bool:
        """Let them start again."""
        return self._run(lambda m: m.resume_class(job_class))

    def pause_key(self, tag: str, for_: Duration | None = None) -> bool:
        """Let no job with this tag start."""
        return self._run(lambda m: m.pause_key(tag, for_))

    def resume_key(self, tag: str) -> bool:
        """Let them start again."""
        return self._run(lambda m: m.resume_key(tag))

    def paused(self) -> dict[str, datetime | None]:
        """Which classes and tags are paused, and until when."""
        return self._run(lambda m: m.paused())

    def search(
        self, *, queue: str | None = None, states: Iterable[State | str] = (), job_class: type | str | None = None,
        tag: str | None = None, text: str | None = None, limit: int = 50, scan: int = 10_000,
    ) -> SearchResult:  # fmt: skip
        """The first jobs that fit all that is given."""
        return self._run(
            lambda m: m.search(
                queue=queue, states=states, job_class=job_class, tag=tag, text=text, limit=limit, scan=scan
            )
        )

    # --- waiting jobs ----------------------------------------------------------------------------------------------

    def cancel(self, job_id: UUID | str, reason: str = "") -> bool:
        """Cancel a job."""
        return self._run(lambda m: m.cancel(job_id, reason))

    def explain(self, job_id: UUID | str) -> Explanation:
        """Why a job is not running."""
        return self._run(lambda m: m.explain(job_id))

    def reprioritize(self, job_id: UUID | str, priority: Priority | str | int) -> bool:
        """Give a waiting job another priority."""
        return self._run(lambda m: m.reprioritize(job_id, priority))

    def reschedule(self, job_id: UUID | str, *, delay: Duration | None = None, at: datetime | None = None) -> bool:
        """Let a waiting job run at another time."""
        return self._run(lambda m: m.reschedule(job_id, delay=delay, at=at))

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
