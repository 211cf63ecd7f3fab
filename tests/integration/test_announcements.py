"""What is announced of queues, workers and schedulers themselves, beside their jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rf_jobs import QueueManager, Scheduler, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from tests.support.jobs import QUEUE, Add, Sleeps
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} <= {0}


@pytest.fixture
def heard(manager: QueueManager) -> list[ev.Event]:
    """All but the round trips."""
    events: list[ev.Event] = []
    manager.bus.subscribe(ev.Event, lambda event: None if isinstance(event, ev.OperationDone) else events.append(event))
    return events


def of(heard: list[ev.Event], *kinds: type[ev.Event]) -> list[ev.Event]:
    return [event for event in heard if isinstance(event, kinds)]


async def test_a_pause_is_announced_once(manager: QueueManager, heard: list[ev.Event]) -> None:
    await manager.dispatch(Add(a=1, b=1))
    heard.clear()
    for _ in range(2):
        await manager.pause(QUEUE)
    for _ in range(2):
        await manager.resume(QUEUE)
    assert heard == [ev.QueuePaused(QUEUE), ev.QueueResumed(QUEUE)]


async def test_a_clear_says_how_many_and_which(manager: QueueManager, heard: list[ev.Event]) -> None:
    ids = await manager.dispatch_many([Add(a=n, b=1) for n in range(700)])
    later = await manager.dispatch(Add(a=1, b=1)).delay(60)
    heard.clear()
    assert await manager.clear(QUEUE) == 701
    cleared = of(heard, ev.QueueCleared)
    assert sum(event.count for event in cleared if isinstance(event, ev.QueueCleared)) == 701
    gone = [event for event in heard if isinstance(event, ev.JobCancelled)]
    assert {event.job_id for event in gone} == {str(each) for each in [*ids, later]}
    assert {event.stage for event in gone} == {"cleared"}
    heard.clear()
    assert await manager.clear(QUEUE) == 0
    assert heard == []


async def test_a_worker_says_when_it_comes_and_goes(manager: QueueManager, heard: list[ev.Event]) -> None:
    pool = WorkerPool(WorkerConfig(queues=[QUEUE, "other"], workers=2, max_concurrent_jobs=3), manager)
    await pool.start()
    job = await manager.dispatch(Sleeps(seconds=60))

    async def runs() -> bool:
        return bool(of(heard, ev.JobStarted))

    await until(runs, "the job runs")
    await pool.shutdown(0)
    life = of(heard, ev.WorkerStarted, ev.WorkerStopping, ev.WorkerStopped)
    assert life == [
        ev.WorkerStarted(pool.id, (QUEUE, "other"), 6),
        ev.WorkerStopping(pool.id, 1),
        ev.WorkerStopped(pool.id, 0, 1),
    ]
    assert (await manager.job(job)).state == "ready"


async def test_a_lease_that_another_has_now_is_announced_and_its_handler_stopped(
    manager: QueueManager, heard: list[ev.Event]
) -> None:
    async with WorkerPool(WorkerConfig(queues=[QUEUE], lease=1), manager) as pool:
        job = await manager.dispatch(Sleeps(seconds=600))

        async def runs() -> bool:
            return bool(of(heard, ev.JobStarted))

        await until(runs, "the job runs")
        await manager.store.client.hset(manager.store.keys.of("meta", str(job)), "token", "another's")

        async def over() -> bool:
            return bool(of(heard, ev.AttemptLost))

        await until(over, "the worker has given it up")
        lost = of(heard, ev.LeaseLost)
        assert lost == [ev.LeaseLost(str(job), QUEUE, Sleeps.__job_class__.name, pool.id)]
        assert heard.index(lost[0]) < heard.index(of(heard, ev.AttemptLost)[0])
        assert of(heard, ev.JobCompleted, ev.JobRetried, ev.JobDied) == []


async def test_a_scheduler_says_when_it_comes_and_goes(manager: QueueManager, heard: list[ev.Event]) -> None:
    scheduler = Scheduler(manager)
    scheduler.schedule("0 0 1 1 *").job(Add(a=1, b=1)).name("yearly")
    async with scheduler:
        pass
    life = of(heard, ev.SchedulerStarted, ev.SchedulerStopped)
    assert life == [ev.SchedulerStarted(scheduler.id, 1), ev.SchedulerStopped(scheduler.id)]
