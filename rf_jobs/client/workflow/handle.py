"""A dispatched batch, or chain, at hand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from rf_jobs.client.deadletters import DeadLetters
from rf_jobs.client.extra import Extra
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.workflow.groups import Member, checked
from rf_jobs.client.workflow.plan import Place, step_of
from rf_jobs.client.workflow.records import BatchProgress, BatchRecord, record_of
from rf_jobs.client.workflow.sending import GroupSender
from rf_jobs.core import transitions
from rf_jobs.core.inspector import Inspector
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.records import JobRecord
from rf_jobs.model.job import Job
from rf_jobs.store import batch_calls
from rf_jobs.store.calls import Call
from rf_jobs.store.commands import Commands
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words import options as checks
from rf_jobs.words.errors import ExecutionFailed, JobError, JobNotFound
from rf_jobs.words.states import State
from rf_jobs.words.timing import Duration, seconds

Send = Callable[[Job, Choices], Awaitable[UUID]]
LOOK_SECONDS = (0.02, 1.0)
"""Between two looks of ``wait``: at first and at the longest."""
DISPATCH_SECONDS = 5.0
"""So long a step waits for the dispatch of its own chain."""
_ROW: tuple[Callable[[Commands, str], Call[Any]], ...] = (batch_calls.fields, batch_calls.pending, batch_calls.failed)
"""What a record is made of."""


async def list_batches(store: AsyncStore, offset: int, limit: int) -> list[BatchRecord]:
    """A page of them, the newest first."""
    commands = store.commands
    ids = await store.run(batch_calls.listed(commands, offset, limit))
    calls = [call(commands, batch) for batch in ids for call in _ROW]
    replies = await store.run_many(calls) if calls else []
    rows = [replies[at : at + 3] for at in range(0, len(replies), 3)]
    return [record_of(batch, *row) for batch, row in zip(ids, rows, strict=True) if "state" in row[0]]


class BatchHandle:
    """Follows one batch, or chain. All methods raise ``JobNotFound`` where it is not known (any more)."""

    __slots__ = ("_dead", "_inspector", "_lifecycle", "_sender", "id")

    def __init__(
        self, batch_id: UUID, lifecycle: Lifecycle, inspector: Inspector, sender: GroupSender, dead: DeadLetters
    ) -> None:
        self.id = batch_id
        self._lifecycle = lifecycle
        self._inspector = inspector
        self._sender = sender
        self._dead = dead

    def __repr__(self) -> str:
        return f"<BatchHandle {self.id}>"

    async def record(self) -> BatchRecord:
        """All that is known of it."""
        commands, batch = self._lifecycle.store.commands, str(self.id)
        fields, pending, failed = await self._lifecycle.store.run_many([call(commands, batch) for call in _ROW])
        if "state" not in fields:
            raise JobNotFound(f"no batch {batch} is known; it was never dispatched here, or is over and was removed")
        return record_of(batch, fields, pending, failed)

    async def progress(self) -> BatchProgress:
        """How far it is."""
        return (await self.record()).progress

    async def add(self, *members: Member) -> list[UUID]:
        """More members, as long as it is not over: from one of its own jobs, which holds it open. Answers with the ids of the
        jobs. Raises ``BatchClosed`` where it is over or was cancelled."""
        return await self._sender.add([checked(member) for member in members], str(self.id))

    async def cancel(self, reason: str = "") -> bool:
        """Cancel what waits, and ask what runs to stop. ``then`` and ``catch`` are not called, ``finally`` is. Answers False
        where it was over."""
        reason = checks.text(reason, "reason") or "batch cancelled"
        await self.record()
        transition = transitions.stop_batch(self._lifecycle.store.commands, str(self.id), reason)
        return await self._lifecycle.apply(transition)

    async def wait(self, timeout: Duration | None = None) -> str:
        """Wait until all members have ended; answers with its state. Raises ``TimeoutError``."""
        pause, longest = LOOK_SECONDS
        async with asyncio.timeout(None if timeout is None else seconds(timeout, "timeout")):
            while (record := await self.record()).finished_at is None:
                await asyncio.sleep(pause)
                pause = min(longest, pause * 1.5)
            return record.state

    async def failed_jobs(self) -> list[JobRecord]:
        """Members that did not complete, those of inner groups among them."""
        await self.record()
        found: list[JobRecord] = []
        groups = [str(self.id)]
        commands = self._lifecycle.store.commands
        for group in groups:
            ids = await self._lifecycle.store.run(batch_calls.failed_ids(commands, group))
            records = await self._inspector.records(ids)
            found += records
            known = {str(record.id) for record in records}
            groups += [each for each in ids if each not in known]
        return found

    async def retry_failed(self) -> int:
        """Replay its dead letters, with all their attempts; what was cancelled because of them waits for them again. It is open
        again, and ends again. Answers how many."""
        count = 0
        for record in await self.failed_jobs():
            if record.state == State.DEAD:
                count += await self._dead.revive_one(record.id)
        return count

    async def error(self) -> JobError:
        """What became of the member that failed first."""
        first = (await self.record()).first_failed
        try:
            record = await self._inspector.job(first)
        except JobNotFound:
            return JobError(f"member {first or '(none)'} of batch {self.id} failed")
        last = record.last_error
        if last is None:
            return JobError(f"job {first} ended as {record.state}: {record.reason}")
        return ExecutionFailed(f"{last.type}: {last.message}", error_type=last.type, traceback=last.traceback)


class ChainHandle(BatchHandle):
    """The chain that a running job is a step of: ``ctx.chain``."""

    __slots__ = ("_batch", "_send", "_step")

    def __init__(
        self, batch_id: UUID, lifecycle: Lifecycle, inspector: Inspector, sender: GroupSender, dead: DeadLetters,
        send: Send, step: UUID, batch: str,
    ) -> None:  # fmt: skip
        super().__init__(batch_id, lifecycle, inspector, sender, dead)
        self._send = send
        self._step = step
        self._batch = batch

    async def insert(self, job: Job | Pending[Any]) -> UUID:
        """A step between this one and the next."""
        asked, extra = self._taken(job)
        extra.parents, extra.next = (str(self._step), *extra.parents), True
        await self._all_of_it()
        return await self._send(*asked)

    async def append(self, job: Job | Pending[Any]) -> UUID:
        """A step behind the last one. Raises ``BatchClosed`` where the chain has failed or was cancelled."""
        asked, extra = self._taken(job)
        extra.last = True
        await self._all_of_it()
        return await self._send(*asked)

    async def _all_of_it(self) -> None:
        """Its first step may run while those behind it are still being dispatched: nothing can be put before or behind what is not
        there. Whoever dispatches it may have died; then this waits for nothing."""
        store = self._lifecycle.store
        call = batch_calls.is_dispatched(store.commands, str(self.id))
        for _ in range(round(DISPATCH_SECONDS / LOOK_SECONDS[0])):
            if await store.run(call):
                return
            await asyncio.sleep(LOOK_SECONDS[0])

    def _taken(self, job: Job | Pending[Any]) -> tuple[tuple[Job, Choices], Extra]:
        asked = step_of(job, Place(str(self.id), self._batch, str(self.id), ()))
        return asked, asked[1].more()
