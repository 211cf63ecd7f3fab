"""Dead letters that nobody wants any more: forgotten one by one, or by their age."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from rf_jobs import Filters, InvalidOption, JobNotFound, QueueManager
from rf_jobs.model import events as ev
from rf_jobs.sync import QueueManager as SyncQueueManager
from rf_jobs.testing import Clock
from tests.support.jobs import QUEUE, Add


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} <= {0}


async def die(manager: QueueManager, queue: str = QUEUE, tag: str = "none", reason: str = "broken") -> UUID:
    await manager.dispatch(Add(a=1, b=1)).on_queue(queue).tags(tag)
    [leased] = await manager.pop_batch(queue, 1)
    await leased.fail(reason)
    return leased.id


async def left(manager: QueueManager) -> set[UUID]:
    return {letter.id for letter in await manager.failed_jobs()}


async def test_the_old_ones_go(manager: QueueManager) -> None:
    gone: list[ev.Event] = []
    manager.bus.subscribe(ev.JobForgotten, gone.append)
    with Clock(manager) as clock:
        old = await die(manager)
        clock.advance(timedelta(days=2))
        young = await die(manager)
        assert await manager.purge_failed(timedelta(days=3)) == 0
        assert await manager.purge_failed(timedelta(days=1)) == 1
        assert await left(manager) == {young}
        with pytest.raises(JobNotFound):
            await manager.job(old)
        assert [event.job_id for event in gone if isinstance(event, ev.JobForgotten)] == [str(old)]
        assert (await manager.queue(QUEUE)).ledger["discarded"] == 1
        assert await manager.purge_failed(0) == 1
        assert await left(manager) == set()


async def test_only_those_that_fit_go(manager: QueueManager) -> None:
    kept = [await die(manager, "other"), await die(manager, tag="tenant:7"), await die(manager, reason="timeout")]
    gone = await die(manager, tag="tenant:8", reason="broken")
    assert await manager.purge_failed(0, Filters(queue=QUEUE, tag="tenant:8", error="broken", job_class="Add")) == 1
    assert await left(manager) == set(kept)
    assert gone not in kept
    assert await manager.purge_failed(0, Filters(queue="other")) == 1
    assert await left(manager) == set(kept[1:])


async def test_one_is_forgotten_once_and_only_if_it_is_dead(manager: QueueManager) -> None:
    dead, waiting = await die(manager), await manager.dispatch(Add(a=1, b=1))
    assert not await manager.forget_failed(waiting)
    assert await manager.forget_failed(dead)
    with pytest.raises(JobNotFound):
        await manager.forget_failed(dead)
    assert (await manager.job(waiting)).state == "ready"


@pytest.mark.parametrize("age", [-1, "old", None])
async def test_an_age_that_cannot_be(manager: QueueManager, age: object) -> None:
    dead = await die(manager)
    with pytest.raises(InvalidOption, match="older_than is"):
        await manager.purge_failed(age)  # type: ignore[arg-type]
    assert await left(manager) == {dead}


def test_without_a_loop(redis_url: str) -> None:
    with SyncQueueManager(redis_url) as manager:
        manager.dispatch(Add(a=1, b=1)).sync()
        [leased] = manager.pop_batch(QUEUE, 1)
        leased.fail("broken")
        assert manager.purge_failed(3600) == 0
        assert manager.purge_failed(0) == 1
        assert manager.failed_jobs() == []
