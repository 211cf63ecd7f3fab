"""A dispatched job at hand: its id, its result, its record."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Generic, Protocol, TypeVar
from uuid import UUID

from rf_jobs.core.joblog import LogLine
from rf_jobs.core.records import JobRecord, Progress
from rf_jobs.core.updates import JobUpdate
from rf_jobs.words.timing import Duration

R = TypeVar("R")


class Waits(Protocol):
    """What a handle needs of a manager."""

    async def wait(self, job_id: UUID | str, timeout: Duration | None = None) -> Any: ...
    async def job(self, job_id: UUID | str) -> JobRecord: ...
    async def job_progress(self, job_id: UUID | str) -> Progress: ...
    async def cancel(self, job_id: UUID | str, reason: str = "") -> bool: ...
    async def job_logs(self, job_id: UUID | str, *, after: int = 0) -> list[LogLine]: ...
    def watch(self, job_id: UUID | str) -> AsyncGenerator[JobUpdate]: ...


class JobHandle(Generic[R]):
    """Follows one job."""

    __slots__ = ("_manager", "id")

    def __init__(self, manager: Waits, job_id: UUID) -> None:
        self._manager = manager
        self.id = job_id

    async def result(self, timeout: Duration | None = None) -> R:
        """Wait for the job to end; see ``QueueManager.wait``."""
        result: R = await self._manager.wait(self.id, timeout)
        return result

    async def record(self) -> JobRecord:
        """All that is known of it."""
        return await self._manager.job(self.id)

    async def progress(self) -> Progress:
        """How far it is."""
        return await self._manager.job_progress(self.id)

    async def logs(self, *, after: int = 0) -> list[LogLine]:
        """Its log lines; see ``QueueManager.job_logs``."""
        return await self._manager.job_logs(self.id, after=after)

    def watch(self) -> AsyncGenerator[JobUpdate]:
        """Follow it live; see ``QueueManager.watch``."""
        return self._manager.watch(self.id)

    async def cancel(self, reason: str = "") -> bool:
        """Cancel it; see ``QueueManager.cancel``."""
        return await self._manager.cancel(self.id, reason)
