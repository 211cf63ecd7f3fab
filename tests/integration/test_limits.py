"""Limits, pauses of classes and tags, fair turns, ageing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from rf_jobs import InvalidOption, Job, JobContext, JobRecord, QueueManager, Rate, RateLimited, WorkerConfig, WorkerPool
from rf_jobs.model.events import Event, HoldEnded, HoldSet, JobBlocked, JobUnblocked
from rf_jobs.words.states import State
from tests.support.flow_jobs import (
    QUEUE,
    Fair,
    Fused,
    Limited,
    Note,
    Rated,
    Shared,
    Throttled,
    gate,
    mended,
    seen,
)
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], sleep=5, workers=1, max_concurrent_jobs=10)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    gate.clear()
    mended.clear()
    async with QueueManager(redis_url) as running:
        yield running
        for queue in await running.queues():
            assert queue.imbalance == 0, queue


async def count(number: int) -> bool:
    return len(seen) >= number


# --- limits on running jobs ----------------------------------------------------------------------------------------


async def test_concurrency_for_each_key(manager: QueueManager) -> None:
    heard: list[Event] = []
    for kind in (JobBlocked, JobUnblocked):
        manager.bus.subscribe(kind, heard.append)
    await manager.dispatch_many([Limited(tenant=t, what=str(n)) for n in range(5) for t in ("a", "b")])
    async with WorkerPool(CONFIG, manager):
        await until(lambda: count(4), "two of each run")
        await until(lambda: _counts(manager, running=4, blocked=6), "the others are held")
        assert Counter(tenant for tenant, _ in seen) == {"a": 2, "b": 2}
        gate.set()
        await until(lambda: _counts(manager, completed=10, blocked=0), "all have run")
    assert [what for tenant, what in seen if tenant == "a"] == ["0", "1", "2", "3", "4"], "in their order"
    assert len([e for e in heard if isinstance(e, JobBlocked)]) == len(
        [e for e in heard if isinstance(e, JobUnblocked)]
    )


async def _counts(manager: QueueManager, **wanted: int) -> bool:
    found = await manager.counts(QUEUE)
    return all(found[state] == number for state, number in wanted.items())


async def test_across_workers_and_after_a_crash(manager: QueueManager) -> None:
    await manager.dispatch_many([Limited(tenant="a", what=str(n)) for n in range(4)])
    commands, store = manager.store.commands, manager.store
    fetched = await store.run(commands.fetch("w1", 1, 10, 50, [QUEUE]))
    assert len(fetched.jobs) == 2
    assert (await store.run(commands.fetch("w2", 1, 10, 5000, [QUEUE]))).jobs == []
    await asyncio.sleep(0.1)  # the first worker is dead: its leases run out
    await store.run(commands.reclaim(100, 3, manager.retention, b'{"type":"x"}', [QUEUE]))
    assert len((await store.run(commands.fetch("w2", 2, 10, 5000, [QUEUE]))).jobs) == 2
    assert (await store.run(commands.fetch("w3", 1, 10, 5000, [QUEUE]))).jobs == []


@pytest.fixture(autouse=True)
async def _defined(manager: QueueManager) -> None:
    """As a worker does at its start, for tests that lease by hand."""
    name = Limited.__job_class__.name
    await manager.store.client.hset(f"{{rf}}:limit:{name}", mapping={"c": "2"})
    await manager.store.client.sadd("{rf}:limits", name)


async def test_a_rate_is_kept_without_polling(manager: QueueManager) -> None:
    await manager.dispatch_many([Rated(number=n) for n in range(6)])
    async with WorkerPool(CONFIG, manager):
        await until(lambda: count(6), "all have run")
    assert [number for number, _ in seen] == list(range(6))
    starts = [at for _, at in seen]
    for first, third in zip(starts, starts[2:], strict=False):
        assert third - first >= 500, starts


async def test_a_token_bucket(manager: QueueManager) -> None:
    await manager.limits.set("model-api", rate=Rate(2, per=0.4, algorithm="bucket"))
    gate.set()
    await manager.dispatch_many([Shared(number=n) for n in range(5)])
    async with WorkerPool(CONFIG, manager):
        await until(lambda: count(5), "all have run")
    records = await _completed(manager)
    starts = sorted(record.started_at.timestamp() for record in records if record.started_at is not None)
    assert starts[1] - starts[0] < 0.15, "two at once"
    assert starts[4] - starts[0] >= 0.5, "then one in 0.2 s"


async def _completed(manager: QueueManager) -> list[JobRecord]:
    return await manager.inspector.page(State.COMPLETED, QUEUE, 0, 100)


async def test_a_shared_limit_is_changed_while_jobs_run(manager: QueueManager) -> None:
    await manager.limits.set("model-api", concurrency=1)
    await manager.dispatch_many([Shared(number=n) for n in range(6)])
    async with WorkerPool(CONFIG.sleep(0.5), manager):
        await until(lambda: _counts(manager, running=1, blocked=5), "one runs")
        info = await manager.limits.get("model-api")
        assert (info.concurrency, info.running, info.held, info.overridden) == (1, 1, 5, True)
        await manager.limits.set("model-api", concurrency=3)
        await until(lambda: _counts(manager, running=3, blocked=3), "three run")
        await manager.limits.reset("model-api")
        await until(lambda: _counts(manager, running=6, blocked=0), "all run")
        gate.set()
    assert [limit.name for limit in await manager.limits.list() if limit.name == "model-api"] == ["model-api"]


async def test_a_held_job_can_be_cancelled(manager: QueueManager) -> None:
    ids = await manager.dispatch_many([Limited(tenant="a", what=str(n)) for n in range(4)])
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _counts(manager, running=2, blocked=2), "two are held")
        assert await manager.cancel(ids[2])
        gate.set()
        await manager.wait(ids[3], 10)
    assert (await manager.job(ids[2])).state == "cancelled"


async def test_a_circuit_breaker(manager: QueueManager) -> None:
    heard: list[Event] = []
    for kind in (HoldSet, HoldEnded):
        manager.bus.subscribe(kind, heard.append)
    async with WorkerPool(CONFIG.max_concurrent_jobs(1), manager):
        first = await manager.dispatch_many([Fused(number=n) for n in range(2)])
        await until(lambda: _counts(manager, dead=2), "two have failed")
        await until(lambda: _open(manager), "it is open")
        held = await manager.dispatch(Fused(number=9))
        await until(lambda: _counts(manager, blocked=1), "the next one is held")
        assert seen == [0, 1]
        mended.set()
        await manager.wait(held, 10)
    assert seen == [0, 1, 9]
    assert len(first) == 2
    assert [type(event) for event in heard] == [HoldSet]


async def _open(manager: QueueManager) -> bool:
    return f"class:{Fused.__job_class__.name}" in await manager.paused()


# --- pauses --------------------------------------------------------------------------------------------------------


async def test_a_class_is_paused_and_resumed(manager: QueueManager) -> None:
    await manager.dispatch_many([Note(what="1"), Rated(number=1), Note(what="2")])
    assert await manager.pause_class(Note)
    assert not await manager.pause_class(Note.__job_class__.name)
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _counts(manager, completed=1, blocked=2), "only the other class runs")
        assert await manager.resume_class(Note)
        await until(lambda: _counts(manager, completed=3, blocked=0), "now they do")
    assert seen[1:] == ["1", "2"]


async def test_a_tag_is_paused_for_a_time(manager: QueueManager) -> None:
    await manager.pause_key("tenant:7", for_=0.5)
    job = await manager.dispatch(Note(what="x")).tags("tenant:7")
    other = await manager.dispatch(Note(what="y")).tags("tenant:8")
    before = datetime.now(UTC)
    async with WorkerPool(CONFIG, manager):
        await manager.wait(other, 10)
        assert seen == ["y"]
        assert list(await manager.paused()) == ["key:tenant:7"]
        await manager.wait(job, 10)
    started = (await manager.job(job)).started_at
    assert started is not None
    assert (started - before).total_seconds() >= 0.4
    assert await manager.paused() == {}


async def test_a_tag_is_resumed_before_its_time(manager: QueueManager) -> None:
    assert await manager.pause_key("tenant:7", for_=3600)
    assert not await manager.resume_key("tenant:8"), "that one was not paused"
    job = await manager.dispatch(Note(what="x")).tags("tenant:7")
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _counts(manager, blocked=1), "it is held")
        assert await manager.resume_key("tenant:7")
        assert await manager.wait(job, 10) == "x"
    assert not await manager.resume_key("tenant:7")
    assert await manager.paused() == {}


async def test_a_handler_slows_its_class_down(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG.max_concurrent_jobs(1), manager):
        await manager.dispatch(Throttled(number=0)).result(10)
        held = await manager.dispatch(Throttled(number=1))
        await until(lambda: _counts(manager, blocked=1), "it is held")
        until_when = (await manager.paused())[f"class:{Throttled.__job_class__.name}"]
        assert until_when is not None
        assert 20 < (until_when - datetime.now(UTC)).total_seconds() <= 31
        await manager.resume_class(Throttled)
        await manager.wait(held, 10)


# --- limits on dispatches ------------------------------------------------------------------------------------------


async def test_over_the_dispatch_limit_a_job_is_delayed_to_the_next_slot(manager: QueueManager) -> None:
    ids = [await manager.dispatch(Note(what=str(n))).rate_limit("mail", 2, per=100) for n in range(5)]
    due = [(await manager.job(job)).due_at for job in ids]
    assert due[:2] == [None, None]
    waits = [(at - datetime.now(UTC)).total_seconds() for at in due[2:] if at is not None]
    assert [round(wait, -2) for wait in waits] == [100, 100, 200]


async def test_over_the_dispatch_limit_it_is_refused_or_dropped(manager: QueueManager) -> None:
    await manager.dispatch(Note(what="a")).rate_limit("mail", 1, per=100)
    with pytest.raises(RateLimited, match="free in"):
        await manager.dispatch(Note(what="b")).rate_limit("mail", 1, per=100, on_limit="raise")
    await manager.dispatch(Note(what="c")).rate_limit("mail", 1, per=100, on_limit="drop")
    assert await manager.counts(QUEUE) == {**dict.fromkeys(await manager.counts(QUEUE), 0), "ready": 1}


# --- turns ---------------------------------------------------------------------------------------------------------


async def test_keys_take_turns(manager: QueueManager) -> None:
    await manager.dispatch_many([Fair(tenant="loud", number=n) for n in range(50)])
    await manager.dispatch_many([Fair(tenant="quiet", number=n) for n in range(5)])
    await manager.dispatch_many([Fair(tenant="heavy", number=n, weight=2) for n in range(10)])
    async with WorkerPool(CONFIG.max_concurrent_jobs(1), manager):
        await until(lambda: count(65), "all have run")
    first = Counter(tenant for tenant, _ in seen[:20])
    assert first["quiet"] == 5, first
    assert first["heavy"] == 10, first
    for tenant in ("loud", "quiet", "heavy"):
        assert [n for t, n in seen if t == tenant] == sorted(n for t, n in seen if t == tenant)


async def test_a_late_key_does_not_wait_for_the_loud_one(manager: QueueManager) -> None:
    await manager.dispatch_many([Fair(tenant="loud", number=n) for n in range(400)])
    commands, store = manager.store.commands, manager.store
    await store.run(commands.fetch("w", 1, 300, 60_000, [QUEUE]))
    await manager.dispatch_many([Fair(tenant="late", number=n) for n in range(3)])
    fetched = await store.run(commands.fetch("w", 2, 8, 60_000, [QUEUE]))
    late = [job for job in fetched.jobs if b'"late"' in job.data]
    assert len(late) == 3
    assert all(fetched.now_ms - job.ready_ms < 10_000 for job in fetched.jobs), "their waits are real times"


async def test_ageing_lifts_a_low_priority(manager: QueueManager) -> None:
    low = await manager.dispatch(Note(what="low")).priority("LOW")
    await asyncio.sleep(0.15)
    for n in range(3):
        await manager.dispatch(Note(what=f"high {n}")).priority("HIGH")
    commands, store = manager.store.commands, manager.store
    strict = await store.run(commands.fetch("w", 1, 1, 60_000, [QUEUE]))
    assert strict.jobs[0].id != str(low)
    aged = await store.run(commands.fetch("w", 2, 1, 60_000, [QUEUE], 50))
    assert [job.id for job in aged.jobs] == [str(low)]
    assert aged.now_ms - aged.jobs[0].ready_ms >= 100, "it kept its age"


# --- bad input -----------------------------------------------------------------------------------------------------


async def test_bad_input(manager: QueueManager) -> None:
    for bad in (0, -1, 1.5, True, 10**9):
        with pytest.raises(InvalidOption, match="whole number"):
            Rate(bad, per=1)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption):
            await manager.limits.set("x", concurrency=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="more than 0"):
        Rate(1, per=0)
    with pytest.raises(InvalidOption, match="algorithm"):
        Rate(1, per=1, algorithm="leaky")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="give concurrency"):
        await manager.limits.set("x")
    with pytest.raises(InvalidOption, match="named"):
        await manager.limits.set("no spaces", concurrency=1)
    with pytest.raises(InvalidOption, match="on_limit"):
        manager.dispatch(Note(what="x")).rate_limit("a", 1, 1, on_limit="explode")  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match="a limit"):
        manager.dispatch(Note(what="x")).rate_limit("a b", 1, 1)

    def lost() -> type[Job]:
        class Lost(Job, concurrency=1, concurrency_key="tenant"):
            async def handle(self, ctx: JobContext) -> None: ...

        return Lost

    def half() -> type[Job]:
        class Half(Job, concurrency_key="tenant"):
            tenant: str

            async def handle(self, ctx: JobContext) -> None: ...

        return Half

    with pytest.raises(InvalidOption, match="no field"):
        lost()
    with pytest.raises(InvalidOption, match="no concurrency"):
        half()
    with pytest.raises(InvalidOption, match="give a Rate"):

        class Wrong(Job, rate=5):  # type: ignore[arg-type]
            async def handle(self, ctx: JobContext) -> None: ...


async def test_a_place_that_nobody_would_free_is_freed(manager: QueueManager) -> None:
    """Somebody removed the record of a running job: what waits for its place must not wait for ever."""
    await manager.dispatch_many([Limited(tenant="a", what=str(n)) for n in range(3)])
    commands, store = manager.store.commands, manager.store
    first = await store.run(commands.fetch("w", 1, 10, 60_000, [QUEUE]))
    assert len(first.jobs) == 2
    gone = first.jobs[0].id
    await store.client.delete(f"{{rf}}:meta:{gone}", f"{{rf}}:job:{gone}")
    await store.client.zrem(f"{{rf}}:running:{QUEUE}", gone)
    await store.client.hincrby("{rf}:ledger", f"{QUEUE}|dispatched", -1)
    ref = f"{Limited.__job_class__.name}/a"
    at = await store.client.zscore("{rf}:timers", ref)
    assert isinstance(at, float)
    assert at <= first.now_ms + 60_000
    await store.client.zadd("{rf}:timers", {ref: 1})  # the minute is over
    assert len((await store.run(commands.fetch("w", 2, 10, 60_000, [QUEUE]))).jobs) == 1
