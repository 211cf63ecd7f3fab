"""How dispatches travel together, and what the server's clock decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from rf_jobs import QueueManager, WorkerConfig, WorkerPool
from rf_jobs.client import dispatching
from rf_jobs.model.events import JobExpired, OperationDone
from rf_jobs.words.errors import JobError
from tests.support import jobs
from tests.support.jobs import QUEUE


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} <= {0}


@pytest.mark.parametrize("count", [1, 5, 31, 32, 500, 3000])
async def test_concurrent_dispatches_share_round_trips(manager: QueueManager, count: int) -> None:
    trips: list[str] = []
    manager.bus.subscribe(OperationDone, lambda event: trips.append(event.op))
    ids = await asyncio.gather(*(manager.dispatch(jobs.Add(a=n, b=1)) for n in range(count)))
    assert len(set(ids)) == count == await manager.size(QUEUE)
    assert trips.count("dispatch") <= 2 + count // dispatching.MAX_BATCH_JOBS


async def test_dispatches_from_waves_of_callers(manager: QueueManager) -> None:
    """Callers that go on as soon as their own dispatch is in, so that batches of both halves come and go."""

    async def caller() -> None:
        for n in range(20):
            await manager.dispatch(jobs.Add(a=n, b=1))

    await asyncio.gather(*(caller() for _ in range(100)))
    assert await manager.size(QUEUE) == 2000


async def test_a_cancelled_caller_does_not_hold_up_the_others(manager: QueueManager) -> None:
    tasks = [asyncio.create_task(manager.send(jobs.Add(a=n, b=1), manager.dispatch(jobs.Add(a=n, b=1)).take()[1]))
             for n in range(100)]  # fmt: skip
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(each, asyncio.CancelledError) for each in done) == 50
    before = await manager.size(QUEUE)
    await manager.dispatch(jobs.Add(a=0, b=0))
    assert await manager.size(QUEUE) == before + 1


@pytest.mark.parametrize("hours", [-1, 1])
async def test_expiry_is_judged_by_the_servers_clock(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A client whose clock is an hour off: what it dispatches neither expires at once nor lives on."""
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + hours * 3600 * 1_000_000_000)
    kept = await manager.dispatch(jobs.Add(a=1, b=1)).expires_in(600)
    late = await manager.dispatch(jobs.Add(a=1, b=1)).expires_in(0.001).delay(0.05)
    monkeypatch.undo()
    expired: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    manager.bus.subscribe(JobExpired, lambda event: expired.set_result(event.job_id))
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        assert await manager.wait(kept, 10) == 2
        assert await asyncio.wait_for(expired, 10) == str(late)
        with pytest.raises(JobError, match="expired"):
            await manager.wait(late, 10)
