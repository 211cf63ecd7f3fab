"""Batches and chains inline: members run one after the other, and what follows from them follows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.workflow.groups import Batch, Group, Member
from rf_jobs.client.workflow.records import BatchProgress, BatchRecord
from rf_jobs.model.job import Job
from rf_jobs.testing.recorder import Kept
from rf_jobs.words.errors import BackendError, ExecutionFailed, JobError
from rf_jobs.words.states import State
from rf_jobs.words.timing import Duration, from_ms, now_ms
from rf_jobs.worker.outcome import describe


class Fate(Protocol):
    """What became of a job."""

    state: State
    error: BaseException | None


@dataclass
class RanGroup:
    """A batch or a chain that ran inline: what its callbacks and ``ctx.batch`` get, as far as nothing has to be asked."""

    id: UUID
    kind: str
    name: str
    total: int
    state: str = "running"
    """running, completed or failed"""
    pending: int = 0
    failed: int = 0
    first: JobError | None = None
    first_failed: str = ""
    fired: list[str] = field(default_factory=list)
    created_ms: int = field(default_factory=now_ms)
    finished_ms: int = 0

    async def progress(self) -> BatchProgress:
        """How far it is."""
        return BatchProgress(self.total, self.pending, self.failed)

    async def record(self) -> BatchRecord:
        """All that is known of it."""
        return BatchRecord(
            self.id, self.kind, self.name, self.state, await self.progress(), from_ms(self.created_ms),
            from_ms(self.finished_ms) if self.finished_ms else None, None, self.first_failed, "", tuple(self.fired), False,
        )  # fmt: skip

    async def error(self) -> JobError:
        """What became of the member that failed first."""
        return self.first or JobError(f"no member of {self.kind} {self.id} failed")

    async def wait(self, timeout: Duration | None = None) -> str:
        """Its state: it is over before anybody can wait."""
        return self.state

    async def add(self, *members: Member) -> list[UUID]:
        """Members that are added from inside are not run inline: raises ``BackendError``."""
        raise BackendError(
            f"{len(members)} members were added to {self.kind} {self.id} from inside; use drain() for that"
        )

    async def cancel(self, reason: str = "") -> bool:
        """What is cancelled from inside goes on inline: raises ``BackendError``."""
        raise BackendError(f"{self.kind} {self.id} was cancelled from inside; use drain() for that")


class GroupRuns:
    """Runs the groups of one dispatch. ``run_one`` runs a job that was recorded, ``skip`` marks one that will not run,
    ``call`` dispatches a callback."""

    def __init__(
        self, known: dict[UUID, RanGroup], run_one: Callable[[Kept], Awaitable[Fate]], skip: Callable[[Kept], None],
        call: Callable[[Job, Choices], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._known = known
        self._run_one = run_one
        self._skip = skip
        self._call = call
        self.errors: list[BaseException] = []
        """Of members that nobody allowed to fail."""

    async def run(self, group: Group, kept: Iterator[Kept], *, lenient: bool = False) -> bool:
        """Run a group, whose jobs are next in ``kept``; answers whether it counts as completed."""
        size = len(group.members)
        ran = self._known[group.id] = RanGroup(group.id, group.kind, group.label, size, pending=size)
        allows = isinstance(group, Batch) and group.is_lenient
        for member in group.members:
            stopped = ran.failed > 0 and not allows
            good = not stopped and await self._member(member, kept, ran, lenient=lenient or allows)
            if stopped:
                self._pass_over(member, kept)
            ran.pending -= 1
            if not good:
                ran.failed += 1
                if ran.failed == 1:
                    await self._fire(group, "catch", ran)
        completed = not ran.failed
        ran.state, ran.finished_ms = "completed" if completed else "failed", now_ms()
        if completed and isinstance(group, Batch):
            await self._fire(group, "then", ran)
        await self._fire(group, "finally", ran)
        return completed or allows

    async def _member(self, member: Member, kept: Iterator[Kept], ran: RanGroup, *, lenient: bool) -> bool:
        if isinstance(member, Group):
            good = await self.run(member, kept, lenient=lenient)
            if not good:
                ran.first = ran.first or JobError(f"member {member.id} of batch {ran.id} failed")
                ran.first_failed = ran.first_failed or str(member.id)
            return good
        item = next(kept)
        if item.record is None:
            return True
        fate = await self._run_one(item)
        if fate.state is State.COMPLETED:
            return True
        if ran.first is None:
            ran.first, ran.first_failed = _told(item.id, fate), str(item.id)
        if fate.error is not None and fate.state is State.DEAD and not lenient:
            self.errors.append(fate.error)
        return False

    def _pass_over(self, member: Member, kept: Iterator[Kept]) -> None:
        if isinstance(member, Group):
            for each in member.members:
                self._pass_over(each, kept)
        else:
            self._skip(next(kept))

    async def _fire(self, group: Group, event: str, ran: RanGroup) -> None:
        for given in group.jobs_of(event):
            if event not in ran.fired:
                ran.fired.append(event)
            job, choices = given.take() if isinstance(given, Pending) else (given, Choices())
            choices.more().batch = str(group.id)
            await self._call(job, choices)


def _told(job_id: UUID, fate: Fate) -> JobError:
    error = fate.error
    if error is None:
        return JobError(f"job {job_id} ended as {fate.state}")
    kind, message, trace = describe(error)
    return ExecutionFailed(f"{kind}: {message}", error_type=kind, traceback=trace)
