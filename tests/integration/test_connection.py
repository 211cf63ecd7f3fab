"""Replies get lost, scripts and connections go, the server becomes a replica or is emptied: the same jobs are there, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from rf_jobs import QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model.events import AttemptLost, JobCompleted, JobDeduplicated, OperationDone
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.proxy import ReplyCutter
from tests.support.servers import ephemeral_server
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], grace=0.5, sleep=2)


@pytest.fixture
def cutter(redis_url: str) -> Iterator[ReplyCutter]:
    with ReplyCutter(redis_url.removeprefix("unix://").partition("?")[0]) as proxy:
        yield proxy


@pytest.fixture
async def manager(cutter: ReplyCutter) -> AsyncIterator[QueueManager]:
    """Talks through the proxy."""
    async with QueueManager(cutter.url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0]


def digest(manager: QueueManager, script: str) -> bytes:
    return manager.store.server.script(script).digest.encode()


async def test_a_dispatch_whose_reply_is_lost_is_one_job(manager: QueueManager, cutter: ReplyCutter) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    cutter.cut(digest(manager, "enqueue"))
    job = await manager.dispatch(jobs.Add(a=2, b=2))
    assert cutter.cuts == 1
    assert await manager.size(QUEUE) == 2
    assert (await manager.job(job)).state == "ready"


async def test_a_bulk_dispatch_whose_reply_is_lost_is_whole(manager: QueueManager, cutter: ReplyCutter) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    cutter.cut(digest(manager, "enqueue"))
    ids = await manager.dispatch_many([jobs.Add(a=n, b=n) for n in range(700)])
    assert cutter.cuts == 1
    assert (len(set(ids)), await manager.size(QUEUE)) == (700, 701)


@pytest.mark.parametrize("script", ["fetch", "finish"])
async def test_a_worker_whose_reply_is_lost_runs_each_job_once(
    manager: QueueManager, cutter: ReplyCutter, redis_url: str, script: str
) -> None:
    completed: list[str] = []
    odd: list[object] = []
    manager.bus.subscribe(JobCompleted, lambda event: completed.append(event.job_id))
    manager.bus.subscribe(AttemptLost, odd.append)
    manager.bus.subscribe(JobDeduplicated, odd.append)
    async with WorkerPool(CONFIG, manager), QueueManager(redis_url) as other:
        assert await other.dispatch(jobs.Add(a=1, b=1)).result(10) == 2
        cutter.cut(digest(manager, script))
        ids = await other.dispatch_many([jobs.Add(a=n, b=0) for n in range(50)])
        assert [await other.wait(job, 20) for job in ids] == list(range(50))
        records = [await other.job(job) for job in ids]
    assert cutter.cuts == 1
    assert {(record.state, record.attempt, record.crashes) for record in records} == {("completed", 1, 0)}
    assert sorted(completed) == sorted({*completed})
    assert set(map(str, ids)) <= set(completed)
    assert odd == []


async def test_scripts_and_connections_may_go_at_any_time(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager, WorkerPool(CONFIG, manager):
        assert await manager.dispatch(jobs.Add(a=1, b=1)).result(10) == 2
        await manager.store.client.script_flush()
        assert await manager.dispatch(jobs.Add(a=2, b=1)).result(10) == 3
        async with QueueManager(redis_url) as other:
            await other.store.connect()
            await other.store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await manager.dispatch(jobs.Add(a=3, b=1)).result(10) == 4


async def test_a_server_that_becomes_a_replica_for_a_while() -> None:
    with ephemeral_server() as server:
        async with QueueManager(server.url, retry_for=20) as manager, WorkerPool(CONFIG, manager):
            assert await manager.dispatch(jobs.Add(a=1, b=1)).result(10) == 2
            await manager.store.client.execute_command("REPLICAOF", "127.0.0.1", "1")
            refused = asyncio.Event()
            manager.bus.subscribe(
                OperationDone,
                lambda event: refused.set() if (event.op, event.error) == ("dispatch", "transient") else None,
            )
            dispatching = asyncio.create_task(manager.dispatch(jobs.Add(a=2, b=2)).result(20))
            await asyncio.wait_for(refused.wait(), 10)
            assert not dispatching.done()
            await manager.store.client.execute_command("REPLICAOF", "NO", "ONE")
            assert await dispatching == 4


async def test_a_server_that_was_emptied_takes_new_jobs(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager, WorkerPool(CONFIG, manager) as pool:
        assert await manager.dispatch(jobs.Add(a=1, b=1)).result(10) == 2
        await manager.store.client.flushall()
        assert await manager.dispatch(jobs.Add(a=2, b=2)).result(10) == 4

        async def known_again() -> bool:
            return [worker.id for worker in await manager.workers()] == [pool.id]

        await until(known_again, "the worker says that it lives")
        assert pool.stalled() == ""


async def test_a_cancellation_is_never_swallowed_by_a_call(redis_url: str) -> None:
    """At whatever moment of a round trip it comes: a loop of calls that was told to stop stops."""

    async def forever(manager: QueueManager) -> None:
        while True:
            await manager.store.run(manager.store.commands.ping())

    async with QueueManager(redis_url) as manager:
        for steps in range(300):
            task = asyncio.create_task(forever(manager))
            for _ in range(5 + steps % 40):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done, f"cancelled after {steps % 40} steps, it went on"
