"""Dispatching: ids that are taken, durations in either form, what a builder warns of and what is announced."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from rf_jobs import Pending, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.words.errors import DuplicateJob, InvalidOption
from tests.support import jobs
from tests.support.jobs import QUEUE


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


def add(manager: QueueManager, a: int) -> Pending[int]:
    return manager.dispatch(jobs.Add(a=a, b=0))


# --- ids that are taken -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spoiled", [False, True])
async def test_an_id_that_another_job_has_refuses_them_all(manager: QueueManager, spoiled: bool) -> None:
    rejected: list[ev.DispatchRejected] = []
    manager.bus.subscribe(ev.DispatchRejected, rejected.append)
    mine = uuid4()
    await add(manager, 1).with_id(mine)
    if spoiled:
        await manager.store.client.set(manager.store.keys.of("job", str(mine)), b"junk")
    with pytest.raises(DuplicateJob, match=f"{mine} is taken by a .*; nothing was enqueued"):
        await manager.dispatch_many([add(manager, 7), add(manager, 2).with_id(mine), add(manager, 8)])
    assert await manager.size(QUEUE) == 1
    assert [(event.reason, event.job_id) for event in rejected] == [("DuplicateJob", str(mine))]


async def test_an_id_given_twice_in_one_call(manager: QueueManager) -> None:
    mine, fine = uuid4(), uuid4()
    with pytest.raises(DuplicateJob, match="nothing was enqueued"):
        await manager.dispatch_many([add(manager, 1).with_id(mine), add(manager, 2).with_id(mine)])
    assert await manager.size(QUEUE) == 0
    same = [add(manager, 1).with_id(mine), add(manager, 1).with_id(mine), add(manager, 3).with_id(fine)]
    assert await manager.dispatch_many(same) == [mine, mine, fine]
    assert await manager.size(QUEUE) == 2


async def test_the_same_batch_sent_again_is_not_doubled(manager: QueueManager) -> None:
    ids = [uuid4() for _ in range(1_200)]
    for _ in range(2):
        found = await manager.dispatch_many([add(manager, n).with_id(each) for n, each in enumerate(ids)])
        assert found == ids
    assert await manager.size(QUEUE) == len(ids)


async def test_an_id_taken_at_the_last_moment_does_not_lose_the_others(
    manager: QueueManager, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = uuid4()
    send_all = manager.placer.send_all

    async def taken_first(items: Any) -> Any:
        async with QueueManager(redis_url) as other:
            await add(other, 9).with_id(mine)
        return await send_all(items)

    monkeypatch.setattr(manager.placer, "send_all", taken_first)
    with pytest.raises(DuplicateJob) as caught:
        await manager.dispatch_many([add(manager, 1), add(manager, 2).with_id(mine), add(manager, 3)])
    assert await manager.size(QUEUE) == 3
    _, _, named = str(caught.value).partition("enqueued were: ")
    enqueued = {record.id for record in await manager.inspector.page("ready", QUEUE, 0, 10)} - {mine}  # type: ignore[arg-type]
    assert set(named.split(", ")) == {str(each) for each in enqueued}


async def test_ids_of_our_own_cost_no_look(manager: QueueManager) -> None:
    await manager.dispatch_many([add(manager, 1)])
    trips: list[ev.OperationDone] = []
    manager.bus.subscribe(ev.OperationDone, trips.append)
    await manager.dispatch_many([add(manager, n) for n in range(10)])
    assert [trip.op for trip in trips] == ["dispatch"]
    await manager.dispatch_many([add(manager, n).with_id(uuid4()) for n in range(1_000)])
    assert [trip.op for trip in trips] == ["dispatch", "read", "dispatch", "dispatch"]


# --- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [20, 20.0, timedelta(seconds=20)])
async def test_a_wait_takes_seconds_or_a_timedelta(manager: QueueManager, limit: float | timedelta) -> None:
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        assert await add(manager, 1).result(limit) == 1
        handle = await add(manager, 2).handle()
        assert await handle.result(limit) == 2
        assert await manager.wait(handle.id, limit) == 2
        job = await asyncio.to_thread(add(manager, 3).sync, limit)
        assert await manager.wait(job, limit) == 3


async def test_a_wait_that_is_none(manager: QueueManager) -> None:
    job = await add(manager, 1)
    with pytest.raises(TimeoutError):
        await manager.wait(job, timedelta(milliseconds=1))
    with pytest.raises(InvalidOption, match="timeout is 'soon'"):
        await manager.wait(job, "soon")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="timeout is -1"):
        add(manager, 1).sync(-1)


# --- the builder --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.delay(-5),
        lambda p: p.at("tomorrow"),
        lambda p: p.on_queue("a b"),
        lambda p: p.max_attempts(0),
        lambda p: p.priority("urgent"),
        lambda p: p.expires_in(0),
        lambda p: p.tags(""),
        lambda p: p.with_id("7"),
    ],
)
async def test_a_builder_that_raised_does_not_warn_on_top(
    manager: QueueManager, change: Callable[[Pending[int]], Pending[int]]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InvalidOption):
            change(add(manager, 1))
        gc.collect()
    assert caught == []


async def test_a_builder_that_went_well_still_warns(manager: QueueManager) -> None:
    def drop() -> None:
        add(manager, 1).delay(5)
        gc.collect()  # where references are not counted

    with pytest.warns(RuntimeWarning, match="never awaited"):
        drop()


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda p: p, "ready"),
        (lambda p: p.delay(0), "ready"),
        (lambda p: p.at(datetime(2001, 1, 1, tzinfo=UTC)), "ready"),
        (lambda p: p.delay(60), "scheduled"),
        (lambda p: p.at(datetime.now(UTC) + timedelta(hours=1)), "scheduled"),
    ],
)
async def test_the_announced_state_is_the_true_one(
    manager: QueueManager, change: Callable[[Pending[int]], Pending[int]], state: str
) -> None:
    seen: list[ev.JobDispatched] = []
    manager.bus.subscribe(ev.JobDispatched, seen.append)
    job = await change(add(manager, 1))
    [event] = seen
    record = await manager.job(job)
    assert (event.state, record.state, record.was_delayed) == (state, state, state == "scheduled")
    assert (event.delay_ms > 0) == (state == "scheduled")
