"""Which jobs a worker takes, when, and how many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from rf_jobs import Job, JobContext, Priority, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.core.transitions import crash_report
from rf_jobs.model.events import JobStarted
from rf_jobs.model.jobclass import Registry
from rf_jobs.store.shapes import Draft, Ending, Verdict
from rf_jobs.worker.appetite import Appetite
from rf_jobs.worker.config import QueueOrder
from rf_jobs.worker.leases import LeaseTable
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.waiting import until

seen: list[str] = []


class Notes(Job, queue=QUEUE):
    text: str

    async def handle(self, ctx: JobContext) -> None:
        seen.append(self.text)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    async with QueueManager(redis_url) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} == {0}


def one_at_a_time(*queues: str) -> WorkerConfig:
    return WorkerConfig(queues=queues, max_concurrent_jobs=1, sleep=60)


async def all_ran(manager: QueueManager, *queues: str) -> None:
    async def empty() -> bool:
        return not any([await manager.size(queue) + (await manager.counts(queue))["running"] for queue in queues])

    await until(empty, "all queues are empty")


async def test_queues_in_strict_order(manager: QueueManager) -> None:
    for n in range(3):
        for queue in ("low", "high"):
            await manager.dispatch_to(Notes(text=f"{queue}{n}"), queue)
    async with WorkerPool(one_at_a_time("high", "low"), manager):
        await all_ran(manager, "high", "low")
    assert seen == ["high0", "high1", "high2", "low0", "low1", "low2"]


async def test_priorities_within_a_queue(manager: QueueManager) -> None:
    for n in range(2):
        for priority in Priority:
            await manager.dispatch(Notes(text=f"{priority.name}{n}")).priority(priority)
    async with WorkerPool(one_at_a_time(QUEUE), manager):
        await all_ran(manager, QUEUE)
    falling = sorted(Priority, reverse=True)
    assert seen == [f"{priority.name}{n}" for priority in falling for n in range(2)]


def test_weights_are_shares_of_first_places() -> None:
    order = QueueOrder({"a": 3, "b": 1}, "default")
    first = Counter(order.next()[0] for _ in range(4000))
    assert first["a"] + first["b"] == 4000
    assert 2800 < first["a"] < 3200  # six standard deviations


def test_an_appetite_is_for_what_can_run_soon() -> None:
    appetite = Appetite(10, 1000)
    assert appetite.wanted(0, 0) == 10
    appetite.ran(1000, 1.0, 0.1)  # a millisecond each, ten thousand a second
    assert appetite.wanted(10, 0) == 400
    assert appetite.wanted(10, 1000) == 0
    for _ in range(20):
        appetite.ran(1, 1.0, 0.1)  # a second each
    assert appetite.wanted(10, 0) == 0


async def test_an_idle_worker_is_woken_and_does_not_wait_for_its_poll(manager: QueueManager) -> None:
    async with WorkerPool(WorkerConfig(queues=[QUEUE, "other"], sleep=60), manager):
        for n in range(3):
            assert await manager.dispatch(jobs.Add(a=n, b=0)).result(10) == n
            assert await manager.dispatch(jobs.Add(a=n, b=1)).on_queue("other").result(10) == n + 1
        assert await manager.dispatch(jobs.Add(a=5, b=0)).delay(0.3).result(10) == 5


async def test_a_paused_queue_rests_and_the_others_go_on(manager: QueueManager) -> None:
    async with WorkerPool(WorkerConfig(queues=[QUEUE, "other"], sleep=60), manager):
        assert await manager.dispatch(jobs.Add(a=1, b=1)).result(10) == 2
        assert await manager.pause(QUEUE)
        resting = await manager.dispatch(jobs.Add(a=2, b=2))
        assert await manager.dispatch(jobs.Add(a=3, b=3)).on_queue("other").result(10) == 6
        assert (await manager.job(resting)).state == "ready"
        assert await manager.resume(QUEUE)
        assert await manager.wait(resting, 10) == 4


async def test_two_workers_share_slow_jobs(manager: QueueManager) -> None:
    by_worker: Counter[str] = Counter()
    manager.bus.subscribe(JobStarted, lambda event: by_worker.update([event.worker]))
    config = WorkerConfig(queues=[QUEUE], max_concurrent_jobs=5, sleep=60)
    async with WorkerPool(config, manager), WorkerPool(config, manager):
        ids = await manager.dispatch_many([jobs.Sleeps(seconds=0.2) for _ in range(30)])
        await asyncio.gather(*(manager.wait(job, 20) for job in ids))
    assert len(by_worker) == 2
    assert min(by_worker.values()) >= 5


async def test_a_class_that_nobody_knows_is_buried_in_the_end(manager: QueueManager) -> None:
    config = WorkerConfig(queues=[QUEUE], lease=1, park_ttl=0.2, sleep=60)
    async with WorkerPool(config, manager, registry=Registry()):
        job = await manager.dispatch(Notes(text="for nobody"))

        async def dead() -> bool:
            return (await manager.job(job)).state == "dead"

        await until(dead, "it is buried")
        record = await manager.job(job)
    assert record.reason == "unknown_class"
    assert "park_ttl" in record.errors[-1].message


async def test_a_crash_of_a_job_that_was_cancelled_counts_both(manager: QueueManager) -> None:
    job = await manager.dispatch(Notes(text="never runs"))
    commands, run = manager.store.commands, manager.store.run
    await run(commands.fetch("w", 1, 1, 60_000, [QUEUE]))
    assert await manager.cancel(job)
    ending = Ending("crash", QUEUE, str(job), "w.1", 5, "it died", crash_report("w", "it died"))
    assert await run(commands.finish([ending], manager.retention)) == [Verdict.CANCELLED]
    (queue,) = await manager.queues()
    assert (queue.ledger["reclaimed"], queue.ledger["cancelled"]) == (1, 1)
    record = await manager.job(job)
    assert (record.state, record.crashes) == ("cancelled", 1)


async def test_a_full_lease_table_stops_the_fetching_and_nothing_else(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outcomes that the server does not take hold their places; the worker must not ask for more than it can note."""
    store = manager.store
    drafts = [Draft(f"00000000-0000-0000-0000-{n:012}", QUEUE, 1, "", b"{}") for n in range(3)]
    async with WorkerPool(WorkerConfig(queues=[QUEUE], max_concurrent_jobs=2, sleep=0.2), manager) as pool:
        fetcher, fetches = pool._fetcher, []
        real = fetcher._fetch

        async def fetch(wanted: int) -> None:
            fetches.append(wanted)
            await real(wanted)

        async def has_looked() -> bool:
            return not fetcher._news.is_set()

        monkeypatch.setattr(fetcher, "_fetch", fetch)
        places = [pool._table.add(QUEUE, f"{n:036}", n) for n in range(pool._table.room)]
        await store.run(store.commands.enqueue(drafts))
        fetcher.poke()
        await until(has_looked, "the fetcher has seen that there is something")
        assert fetches == []
        assert not fetcher._dry.is_set(), "it was for another reason that it did not fetch"
        assert (await manager.counts(QUEUE))["ready"] == 3
        for place in places:
            pool._table.remove(place)
        fetcher.poke()
        await all_ran(manager, QUEUE)
        assert fetches


async def test_a_full_lease_table_does_not_end_the_fetching(manager: QueueManager) -> None:
    """Its room comes back when the server has taken the outcomes, which is after the last attempt ended."""
    await manager.dispatch_many([Notes(text=str(n)) for n in range(50)])
    config = WorkerConfig(queues=[QUEUE], max_concurrent_jobs=10, sleep=60)
    async with WorkerPool(config, manager, table=LeaseTable(4, (QUEUE,))):
        await all_ran(manager, QUEUE)
    assert len(seen) == 50
