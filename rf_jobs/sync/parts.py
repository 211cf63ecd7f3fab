"""What a synchronous manager hands out: leased jobs, batches, limits, schedules."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, Unpack
from uuid import UUID

from rf_jobs.client.consumer import LeasedJob
from rf_jobs.client.limits import LimitInfo, Limits
from rf_jobs.client.schedules import Schedules
from rf_jobs.client.workflow.groups import Member
from rf_jobs.client.workflow.handle import BatchHandle
from rf_jobs.client.workflow.records import BatchProgress, BatchRecord
from rf_jobs.core.records import JobRecord
from rf_jobs.core.schedules import ScheduleInfo
from rf_jobs.model.job import Job
from rf_jobs.model.schedule import ScheduleOptions
from rf_jobs.words.limits import Rate
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


class SyncBatchHandle:
    """``BatchHandle`` without an event loop."""

    def __init__(self, run: Callable[[Callable[[BatchHandle], Coroutine[Any, Any, Any]]], Any], batch_id: UUID) -> None:
        self._run = run
        self.id = batch_id

    def record(self) -> BatchRecord:
        """All that is known of it."""
        found: BatchRecord = self._run(lambda b: b.record())
        return found

    def progress(self) -> BatchProgress:
        """How far it is."""
        return self.record().progress

    def add(self, *members: Member) -> list[UUID]:
        """More members, as long as it is not over."""
        ids: list[UUID] = self._run(lambda b: b.add(*members))
        return ids

    def cancel(self, reason: str = "") -> bool:
        """Cancel what waits, and ask what runs to stop."""
        done: bool = self._run(lambda b: b.cancel(reason))
        return done

    def wait(self, timeout: Duration | None = None) -> str:
        """Wait until all members have ended; answers with its state."""
        state: str = self._run(lambda b: b.wait(timeout))
        return state

    def failed_jobs(self) -> list[JobRecord]:
        """Members that did not complete."""
        found: list[JobRecord] = self._run(lambda b: b.failed_jobs())
        return found

    def retry_failed(self) -> int:
        """Replay its dead letters."""
        count: int = self._run(lambda b: b.retry_failed())
        return count


class SyncLimits:
    """``manager.limits`` without an event loop."""

    def __init__(self, run: Callable[[Callable[[Limits], Coroutine[Any, Any, Any]]], Any]) -> None:
        self._run = run

    def set(self, name: str, *, concurrency: int | None = None, rate: Rate | None = None) -> None:
        """Define a limit, or change it."""
        self._run(lambda limits: limits.set(name, concurrency=concurrency, rate=rate))

    def reset(self, name: str) -> None:
        """Back to what the code says."""
        self._run(lambda limits: limits.reset(name))

    def get(self, name: str) -> LimitInfo:
        """One limit."""
        found: LimitInfo = self._run(lambda limits: limits.get(name))
        return found

    def list(self) -> Sequence[LimitInfo]:
        """All limits, by name."""
        found: Sequence[LimitInfo] = self._run(lambda limits: limits.list())
        return found
