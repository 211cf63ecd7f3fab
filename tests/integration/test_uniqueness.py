"""Unique jobs: every mode, every policy; locks that never orphan."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rf_jobs import DuplicateJob, InvalidOption, Job, JobContext, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model.events import Event, JobDeduplicated
from tests.support.flow_jobs import QUEUE, Breaks, Note, UniqueReport, Waits, gate, mended, seen
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], sleep=5)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    gate.clear()
    mended.clear()
    async with QueueManager(redis_url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0] * len(await running.queues())


async def test_the_holder_answers_for_the_others(manager: QueueManager) -> None:
    heard: list[Event] = []
    manager.bus.subscribe(JobDeduplicated, heard.append)
    first = await manager.dispatch(Note(what="a")).unique_for(60)
    assert await manager.dispatch(Note(what="a")).unique_for(60) == first
    assert await manager.dispatch(Note(what="b")).unique_for(60) != first
    assert await manager.size(QUEUE) == 2
    assert len(heard) == 1
    assert (await manager.queue(QUEUE)).ledger["deduplicated"] == 1


async def test_the_same_call_sent_again_is_its_own(manager: QueueManager) -> None:
    first = await manager.dispatch(Note(what="a")).unique_for(60)
    same = manager.dispatch(Note(what="a")).unique_for(60, on_conflict="raise").with_id(first)
    assert await same == first


async def test_until_the_window_ends_counts_after_the_end_of_the_job(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        first = await manager.dispatch(Note(what="a")).unique_for(0.6)
        await manager.wait(first, 10)
        assert await manager.dispatch(Note(what="a")).unique_for(0.6) == first

        async def free() -> bool:
            return await manager.dispatch(Note(what="a")).unique_for(0.6) != first

        await until(free, "the window ended")


async def test_until_started(manager: QueueManager) -> None:
    first = await manager.dispatch(Waits()).unique_for(60, until="started")
    assert await manager.dispatch(Waits()).unique_for(60, until="started") == first
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _count(1), "it runs")
        second = await manager.dispatch(Waits()).unique_for(60, until="started")
        assert second != first
        gate.set()
        await manager.wait(second, 10)


async def test_until_done(manager: QueueManager) -> None:
    first = await manager.dispatch(Waits()).unique_for(60, until="done")
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _count(1), "it runs")
        assert await manager.dispatch(Waits()).unique_for(60, until="done") == first
        gate.set()
        await manager.wait(first, 10)
        assert await manager.unique_holder(manager.dispatch(Waits()).unique_for(60, until="done")) is None
        assert await manager.dispatch(Waits()).unique_for(60, until="done") != first


@pytest.mark.parametrize("end", ["dead", "cancelled", "cleared", "expired"])
async def test_every_end_frees_the_lock(manager: QueueManager, end: str) -> None:
    kind = Breaks if end == "dead" else Note
    pending = manager.dispatch(kind(what="x")).unique_for(None, until="done")
    first = await (pending.expires_in(0.01) if end == "expired" else pending)
    if end == "cancelled":
        assert await manager.cancel(first)
    elif end == "cleared":
        assert await manager.clear(QUEUE) == 1
    else:
        await asyncio.sleep(0.05)  # the time of what expires passes
        async with WorkerPool(CONFIG, manager):

            async def over() -> bool:
                return (await manager.job(first)).state == end

            await until(over, "it ended")
    assert await manager.dispatch(kind(what="x")).unique_for(None, until="done") != first


async def test_a_lock_whose_holder_is_gone_is_taken(manager: QueueManager) -> None:
    first = await manager.dispatch(Note(what="a")).unique_for(None, until="done")
    client = manager.store.client
    await client.delete(f"{{rf}}:job:{first}", f"{{rf}}:meta:{first}")
    await client.zrem(f"{{rf}}:ready:{QUEUE}", str(first))
    await client.hincrby("{rf}:ledger", f"{QUEUE}|dispatched", -1)
    assert await manager.dispatch(Note(what="a")).unique_for(None, until="done") != first


async def test_raise(manager: QueueManager) -> None:
    first = await manager.dispatch(Note(what="a")).unique_for(60)
    with pytest.raises(DuplicateJob, match=str(first)):
        await manager.dispatch(Note(what="a")).unique_for(60, on_conflict="raise")
    with pytest.raises(DuplicateJob, match=str(first)):
        await manager.dispatch_many([manager.dispatch(Note(what="a")).unique_for(60, on_conflict="raise")])


async def test_replace(manager: QueueManager) -> None:
    first = await manager.dispatch(UniqueReport(account=1, note="old"))
    second = await manager.dispatch(UniqueReport(account=1, note="new")).unique_for(
        60, until="done", on_conflict="replace"
    )
    assert second != first
    record = await manager.job(first)
    assert (record.state, record.reason) == ("cancelled", f"replaced by {second}")
    async with WorkerPool(CONFIG, manager):
        await manager.wait(second, 10)
    assert seen == [(1, "new")]


async def test_a_holder_that_runs_is_not_replaced(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        first = await manager.dispatch(Waits()).unique_for(60, until="done")
        await until(lambda: _count(1), "it runs")
        assert await manager.dispatch(Waits()).unique_for(60, until="done", on_conflict="replace") == first
        gate.set()


async def test_debounce_pushes_the_time_up_to_a_ceiling(manager: QueueManager) -> None:
    def again(what: str) -> Any:
        return manager.dispatch(Note(what=what)).unique_for(100, on_conflict="debounce", by=(), max_wait=150)

    first = await again("a")
    due = (await manager.job(first)).due_at
    second = await again("a")
    assert second != first
    later = (await manager.job(second)).due_at
    assert due is not None
    assert later is not None
    assert later >= due
    assert (await manager.job(first)).state == "cancelled"
    # The ceiling counts from the first of them.
    client = manager.store.client
    [key] = await client.keys("{rf}:unique:*")
    value = await client.get(key)
    assert isinstance(value, bytes)
    holder, mode, since = value.decode().split()
    await client.set(key, f"{holder} {mode} {int(since) - 100_000}")
    third = await again("a")
    record = await manager.job(third)
    assert record.due_at is not None
    assert (record.due_at - due).total_seconds() < 0
    assert (await manager.counts(QUEUE))["scheduled"] == 1


async def test_equal_by_chosen_fields_and_by_the_class(manager: QueueManager) -> None:
    first = await manager.dispatch(UniqueReport(account=1, note="a"))
    assert await manager.dispatch(UniqueReport(account=1, note="b")) == first
    assert await manager.dispatch(UniqueReport(account=2)) != first
    assert await manager.unique_holder(manager.dispatch(UniqueReport(account=1))) == first

    class Keyed(Job, queue=QUEUE):
        who: str

        def unique_key(self) -> str:
            return self.who.lower()

        async def handle(self, ctx: JobContext) -> None: ...

    held = await manager.dispatch(Keyed(who="Ann")).unique_for(60)
    assert await manager.dispatch(Keyed(who="ANN")).unique_for(60) == held


async def test_many_at_once_leave_one(manager: QueueManager) -> None:
    ids = await manager.dispatch_many([manager.dispatch(Note(what="a")).unique_for(60) for _ in range(50)])
    assert len(set(ids)) == 1
    assert await manager.size(QUEUE) == 1


def test_bad_input() -> None:
    manager = QueueManager("redis://127.0.0.1:1")
    for bad in (
        {"window": 0},
        {"window": None},
        {"window": 5, "until": "never"},
        {"window": 5, "on_conflict": "shout"},
        {"window": 5, "max_wait": 9},
        {"window": None, "until": "done", "on_conflict": "debounce"},
    ):
        window = bad.pop("window")
        with pytest.raises(InvalidOption):
            manager.dispatch(Note(what="x")).unique_for(window, **bad)  # type: ignore[arg-type]

    def bad_class() -> type[Job]:
        class Bad(Job, unique_for=60, unique_by=("nothing",)):
            async def handle(self, ctx: JobContext) -> None: ...

        return Bad

    with pytest.raises(InvalidOption, match="unique_by"):
        bad_class()


async def _count(number: int) -> bool:
    return len(seen) >= number
