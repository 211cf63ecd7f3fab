"""What an operator does with dead letters."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from rf_jobs.core import transitions
from rf_jobs.core.inspector import PAGE, Filters, Inspector
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.records import JobRecord
from rf_jobs.core.transitions import Transition
from rf_jobs.store.commands import Commands
from rf_jobs.words.states import State

Edge = Callable[[Commands, str, dict[str, str]], Transition[list[str]]]


class DeadLetters:
    """Lists, replays and forgets."""

    def __init__(self, lifecycle: Lifecycle, inspector: Inspector) -> None:
        self._lifecycle = lifecycle
        self._inspector = inspector

    async def page(self, offset: int, limit: int, filters: Filters) -> list[JobRecord]:
        """Some of them, newest first within a queue. What is skipped is read only where it must be looked at."""
        found: list[JobRecord] = []
        for queue in [filters.queue] if filters.queue else await self._inspector.queue_names():
            start = 0 if filters.need_records else min(offset, await self._inspector.count(State.DEAD, queue))
            offset -= start
            while len(found) < limit:
                size = PAGE if filters.need_records else min(PAGE, limit - len(found))
                ids = await self._inspector.ids(State.DEAD, queue, start, size, newest_first=True)
                start += len(ids)
                fitting = [record for record in await self._inspector.records(ids, queue) if filters.fits(record)]
                found += fitting[offset : offset + limit - len(found)]
                offset -= min(offset, len(fitting))
                if len(ids) < size:
                    break
        return found

    async def revive_one(self, job_id: UUID) -> bool:
        """Replay one."""
        return await self._one(transitions.revive, job_id)

    async def forget_one(self, job_id: UUID) -> bool:
        """Remove one."""
        return await self._one(transitions.forget, job_id)

    async def _one(self, edge: Edge, job_id: UUID) -> bool:
        record = await self._inspector.job(job_id)
        return bool(await self._apply(edge, record.queue, {str(job_id): record.job_class}))

    async def revive_all(self, filters: Filters) -> int:
        """Replay those that fit; one that dies again meanwhile is not replayed twice."""
        return await self._all(transitions.revive, filters, None)

    async def purge(self, older_than: float, filters: Filters) -> int:
        """Remove those that fit and died longer ago than this (seconds, by the server's clock)."""
        before = await self._lifecycle.store.run(self._lifecycle.store.commands.time()) - older_than * 1000

        def is_old(record: JobRecord) -> bool:
            return record.finished_at is None or record.finished_at.timestamp() * 1000 <= before

        return await self._all(transitions.forget, filters, is_old)

    async def _all(self, edge: Edge, filters: Filters, keep: Callable[[JobRecord], bool] | None) -> int:
        done = 0
        batch: dict[str, dict[str, str]] = {}
        async for record in self._inspector.matching(filters, keep):
            jobs = batch.setdefault(record.queue, {})
            jobs[str(record.id)] = record.job_class
            if len(jobs) >= PAGE:
                done += len(await self._apply(edge, record.queue, batch.pop(record.queue)))
        for queue, jobs in batch.items():
            done += len(await self._apply(edge, queue, jobs))
        return done

    async def _apply(self, edge: Edge, queue: str, jobs: dict[str, str]) -> list[str]:
        return await self._lifecycle.apply(edge(self._lifecycle.store.commands, queue, jobs))
