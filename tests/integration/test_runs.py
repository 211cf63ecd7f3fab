"""What becomes of a job, by what its handler does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from rf_jobs import Job, JobContext, JobRecord, Middleware, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model.events import AttemptLost, JobOverran, JobReleased, JobStarted
from rf_jobs.model.middleware import Handle
from rf_jobs.words.errors import ExecutionFailed, JobError, JobTimeout
from tests.support import jobs
from tests.support.jobs import QUEUE

CONFIG = WorkerConfig(queues=[QUEUE], grace=20, sleep=5)
"""The grace is long: what stops when told to must not be given up because the machine is slow."""


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0] * len(await running.queues())


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(CONFIG, manager) as running:
        yield running
        assert running.stalled() == ""


async def ended(manager: QueueManager, job: Job) -> JobRecord:
    """The job's record, once it is over."""
    job_id = await manager.dispatch(job)
    with contextlib.suppress(JobError):
        await manager.wait(job_id, 20)
    return await manager.job(job_id)


async def test_a_coroutine_and_a_thread(manager: QueueManager, pool: WorkerPool) -> None:
    assert await manager.dispatch(jobs.Add(a=2, b=3)).result(10) == 5
    assert (await manager.dispatch(jobs.InThread()).result(10)).startswith("rf-jobs-")


async def test_a_process_of_its_own(manager: QueueManager, pool: WorkerPool) -> None:
    first = await manager.dispatch(jobs.InProcess(do="run")).result(20)
    assert first == await manager.dispatch(jobs.InProcess(do="run")).result(20), (
        "the child was not kept for the next job"
    )
    record = await ended(manager, jobs.InProcess(do="raise"))
    assert (record.state, [e.type for e in record.errors]) == ("dead", ["ValueError", "ValueError"])
    assert "in a child" in record.errors[0].traceback
    assert (await ended(manager, jobs.InProcess(do="discard"))).state == "cancelled"
    record = await ended(manager, jobs.InProcess(do="fail"))
    assert (record.state, record.reason, record.attempt) == ("dead", "requested", 1)


async def test_a_child_that_dies_counts_crashes(manager: QueueManager, pool: WorkerPool) -> None:
    record = await ended(manager, jobs.InProcess(do="die"))
    assert (record.state, record.reason, record.crashes) == ("dead", "poison", 3)
    assert "SIGKILL" in record.errors[-1].message


async def test_a_timeout_kills_a_child(manager: QueueManager, pool: WorkerPool) -> None:
    record = await ended(manager, jobs.Hang())
    assert (record.state, record.reason) == ("dead", "timeout")


async def test_attempts_and_errors(manager: QueueManager, pool: WorkerPool) -> None:
    assert await manager.dispatch(jobs.Fails(until=3)).result(10) == "attempt 3 of 3"
    record = await ended(manager, jobs.Fails())
    assert (record.state, record.attempt) == ("dead", 3)
    assert [(e.attempt, e.message, e.worker) for e in record.errors] == [
        (n, f"attempt {n}", pool.id) for n in (1, 2, 3)
    ]
    assert all("RuntimeError" in e.traceback for e in record.errors)
    assert [m.event for m in record.timeline if m.event != "started"] == ["dispatched", "retried", "retried", "dead"]
    assert await manager.dispatch(jobs.Fails(until=5)).max_attempts(5).result(10) == "attempt 5 of 5"


@pytest.mark.parametrize(
    ("how", "state", "reason"),
    [
        ("retry", "completed", ""),
        ("fail", "dead", "requested"),
        ("discard", "cancelled", "on purpose"),
        ("snooze", "completed", ""),
    ],
)
async def test_handlers_steer(manager: QueueManager, pool: WorkerPool, how: str, state: str, reason: str) -> None:
    record = await ended(manager, jobs.Steered(how=how))
    assert (record.state, record.reason, record.attempt) == (state, reason, 2 if how == "retry" else 1)


@pytest.mark.parametrize(
    ("error", "state", "attempts"), [("os", "dead", 5), ("key", "cancelled", 1), ("value", "dead", 1)]
)
async def test_filters(manager: QueueManager, pool: WorkerPool, error: str, state: str, attempts: int) -> None:
    record = await ended(manager, jobs.Filtered(error=error))
    assert (record.state, record.attempt) == (state, attempts)


@pytest.mark.parametrize(
    "what", ["exit", "interrupt", "cancelled", "unprintable", "surrogate", "huge", "unserialisable"]
)
async def test_odd_errors_end_the_job_and_nothing_else(manager: QueueManager, pool: WorkerPool, what: str) -> None:
    record = await ended(manager, jobs.Odd(what=what))
    assert record.state == "dead"
    assert record.last_error is not None
    assert len(record.last_error.message) <= 2_000
    assert await manager.dispatch(jobs.Add(a=1, b=1)).result(10) == 2


@pytest.mark.parametrize("stubborn", [False, True])
async def test_a_timeout_is_a_failure(manager: QueueManager, pool: WorkerPool, stubborn: bool) -> None:
    overran: list[JobOverran] = []
    manager.bus.subscribe(JobOverran, overran.append)
    record = await ended(manager, jobs.Slow(stubborn=stubborn))
    assert (record.state, record.reason, record.attempt) == ("dead", "timeout", 2)
    assert len(overran) == (2 if stubborn else 0), "a handler that swallows its cancellation is reported"
    with pytest.raises(JobTimeout):
        await manager.wait(record.id, 1)


async def test_a_thread_is_asked_to_stop(manager: QueueManager, pool: WorkerPool) -> None:
    record = await ended(manager, jobs.SlowThread())
    assert (record.state, record.reason) == ("dead", "timeout")
    assert pool.stuck == 0


async def test_more_time_can_be_had(manager: QueueManager, pool: WorkerPool) -> None:
    assert await manager.dispatch(jobs.Extends()).result(10) == "in time"


@pytest.mark.parametrize("broken", [False, True])
async def test_the_failed_hook_is_called_once_at_the_end(
    manager: QueueManager, pool: WorkerPool, tmp_path: Path, broken: bool
) -> None:
    path = tmp_path / "hook"
    path.touch()
    record = await ended(manager, jobs.Hook(path=str(path), broken=broken))
    assert record.state == "dead"
    assert path.read_text() == "2 ValueError: always\n"


@pytest.mark.parametrize("policy", ["0", "fixed", "linear", "exponential"])
async def test_options_may_be_methods(manager: QueueManager, pool: WorkerPool, policy: str) -> None:
    assert (await ended(manager, jobs.Dynamic(attempts=4, policy=policy))).attempt == 4


async def test_a_broken_backoff_buries_with_the_reason(manager: QueueManager, pool: WorkerPool) -> None:
    record = await ended(manager, jobs.Dynamic(attempts=4, policy="broken"))
    assert (record.state, record.reason) == ("dead", "backoff")
    assert record.last_error is not None
    assert "ZeroDivisionError" in record.last_error.message


async def test_a_running_job_can_be_cancelled(manager: QueueManager, pool: WorkerPool) -> None:
    started = asyncio.Event()
    manager.bus.subscribe(JobStarted, lambda _: started.set())
    job = await manager.dispatch(jobs.Sleeps(seconds=60)).handle()
    await started.wait()
    assert await job.cancel()
    with pytest.raises(JobError, match="cancelled"):
        await job.result(10)
    assert not await job.cancel()


async def test_middleware_goes_around(manager: QueueManager) -> None:
    seen: list[str] = []

    class Around(Middleware):
        def __init__(self, name: str) -> None:
            self._name = name

        async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
            seen.append(f"{self._name} in")
            try:
                return await handle()
            finally:
                seen.append(f"{self._name} out")

    manager.middleware.add(Around("a"))
    manager.middleware.add(Around("b"))
    async with WorkerPool(CONFIG, manager):
        assert await manager.dispatch(jobs.Add(a=1, b=2)).result(10) == 3
    assert seen == ["a in", "b in", "b out", "a out"]


async def test_a_shutdown_hands_back_what_runs_and_what_waits(manager: QueueManager) -> None:
    released: list[JobReleased] = []
    manager.bus.subscribe(JobReleased, released.append)
    started = asyncio.Event()
    manager.bus.subscribe(JobStarted, lambda _: started.set())
    pool = WorkerPool(CONFIG.max_concurrent_jobs(2), manager)
    await pool.start()
    ids = await manager.dispatch_many([jobs.Sleeps(seconds=60) for _ in range(5)])
    await started.wait()
    await pool.shutdown(0.1)
    counts = await manager.counts(QUEUE)
    assert (counts["ready"], counts["running"]) == (5, 0)
    assert released
    for job_id in ids:
        record = await manager.job(job_id)
        assert (record.attempt, record.crashes) == (0, 0), "a shutdown must not use up an attempt"
    assert await manager.workers() == []


async def test_a_shutdown_waits_for_jobs_that_end_in_time(manager: QueueManager) -> None:
    started = asyncio.Event()
    manager.bus.subscribe(JobStarted, lambda _: started.set())
    pool = WorkerPool(CONFIG, manager)
    await pool.start()
    job = await manager.dispatch(jobs.Sleeps(seconds=0.5))
    await started.wait()
    await pool.shutdown(10)
    assert (await manager.job(job)).state == "completed"


async def test_a_stolen_lease_is_noticed_and_its_outcome_refused(manager: QueueManager) -> None:
    lost: asyncio.Queue[AttemptLost] = asyncio.Queue()
    manager.bus.subscribe(AttemptLost, lost.put_nowait)
    started = asyncio.Event()
    manager.bus.subscribe(JobStarted, lambda _: started.set())
    async with WorkerPool(CONFIG.lease(3), manager):
        job = await manager.dispatch(jobs.Sleeps(seconds=60))
        await started.wait()
        await steal(manager, job)
        assert (await asyncio.wait_for(lost.get(), 15)).job_id == str(job)
        await manager.cancel(job)


async def steal(manager: QueueManager, job: UUID) -> None:
    """Let its lease run out and take it back, as another worker would. At once: a heartbeat between would extend it."""
    store = manager.store
    reclaim = store.commands.reclaim(10, 5, manager.retention, b"{}", [QUEUE])
    assert await store.run(reclaim) == []  # so that the server knows the script
    async with store.client.pipeline(transaction=True) as both:
        both.zadd(store.keys.of("running", QUEUE), {str(job): 1})
        both.execute_command(*store.server.wire(reclaim))
        _, reply = await both.execute()
    assert [taken.id for taken in reclaim.read(reply)] == [str(job)]


async def test_failure_of_waiting_is_said(manager: QueueManager, pool: WorkerPool) -> None:
    with pytest.raises(ExecutionFailed, match="RuntimeError: attempt 3"):
        await manager.dispatch(jobs.Fails()).result(10)
    with pytest.raises(TimeoutError):
        await manager.dispatch(jobs.Sleeps(seconds=5)).delay(60).result(0.1)
