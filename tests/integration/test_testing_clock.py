"""``Clock``: the time of a real server, moved."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from rf_jobs import (
    BackendError,
    ConfigError,
    InvalidOption,
    JobHandle,
    QueueManager,
    WorkerConfig,
    WorkerError,
    WorkerPool,
)
from rf_jobs.store import scripts
from rf_jobs.testing import Clock
from rf_jobs.words.timing import now_ms
from tests.support.jobs import QUEUE, Add, Sleeps
from tests.support.waiting import until

POOL = WorkerConfig(queues=[QUEUE], sleep=60)


async def is_running(handle: JobHandle[Any]) -> bool:
    return (await handle.record()).state == "running"


async def server_time(manager: QueueManager) -> datetime:
    return datetime.fromtimestamp(await manager.store.run(manager.store.commands.time()) / 1000, UTC)


def near(there: datetime, expected: datetime) -> bool:
    return abs(there - expected) < timedelta(seconds=5)


async def test_scripts_and_this_process_see_the_same_time(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        with Clock(manager) as clock:
            assert near(clock.now(), datetime.now(UTC))
            there = clock.advance(timedelta(days=3))
            assert near(there, datetime.now(UTC) + timedelta(days=3))
            assert near(await server_time(manager), there)
            assert near(datetime.fromtimestamp(now_ms() / 1000, UTC), there)
            new_year = datetime(2031, 1, 1, tzinfo=UTC)
            assert near(clock.travel_to(new_year), new_year)
            assert near(await server_time(manager), new_year)
            past = datetime(2001, 1, 1, tzinfo=UTC)
            assert near(clock.travel_to(past), past)
            assert near(await server_time(manager), past)
        assert near(await server_time(manager), datetime.now(UTC))
        assert near(datetime.fromtimestamp(now_ms() / 1000, UTC), datetime.now(UTC))


async def test_it_can_stand_still(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        with Clock(redis_url) as clock:
            at = clock.freeze(datetime(2030, 6, 1, 12, tzinfo=UTC))
            await asyncio.sleep(0.005)
            assert await server_time(manager) == at == clock.now()
            assert clock.advance(1.5) == at + timedelta(seconds=1.5) == await server_time(manager)
            assert clock.travel_to(at) == at == clock.freeze()
            job_id = await manager.dispatch(Add(a=1, b=2)).delay(60)
            record = await manager.job(job_id)
            assert record.dispatched_at == at
            assert record.due_at == at + timedelta(seconds=60)
            assert clock.unfreeze() >= at
            while clock.now() == at:
                pass
            assert near(await server_time(manager), at)
            assert near(clock.unfreeze(), at)


async def test_a_delayed_job_runs_as_soon_as_its_time_has_come(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager, WorkerPool(POOL, manager):
        with Clock(manager) as clock:
            job_id = await manager.dispatch(Add(a=1, b=2)).delay(timedelta(days=30))
            clock.advance(timedelta(days=29))
            assert (await manager.job(job_id)).state == "scheduled"
            clock.advance(timedelta(days=1))
            assert await manager.wait(job_id, 10) == 3
            record = await manager.job(job_id)
        assert record.dispatched_at is not None
        assert record.finished_at is not None
        assert record.finished_at - record.dispatched_at >= timedelta(days=30)
        assert await manager.wait(await manager.dispatch(Add(a=2, b=2)), 10) == 4, "the time before works as well"


async def test_expiry_and_keys_that_expire_follow(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        with Clock(manager) as clock:
            late = await manager.dispatch(Add(a=1, b=2)).expires_in(3600)
            clock.advance(3601)
            async with WorkerPool(POOL, manager):
                fresh = await manager.dispatch(Add(a=1, b=2))
                assert await manager.wait(fresh, 10) == 3
                assert (await manager.job(late)).state == "expired"
            assert (await manager.job(fresh)).has_result
            clock.advance(manager.settings.jobs.result_ttl_seconds - 60)
            assert (await manager.job(fresh)).has_result
            clock.advance(120)
            assert not (await manager.job(fresh)).has_result


async def test_workers_do_not_age_by_it(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager, WorkerPool(POOL, manager) as pool:
        job_id = await manager.dispatch(Sleeps(seconds=0.3))
        handle = manager.handle(job_id)
        await until(lambda: is_running(handle), "it runs")
        with Clock(manager) as clock:
            clock.advance(timedelta(days=1))
            [worker] = await manager.workers()
            assert worker.state != "stale"
            assert worker.id == pool.id
            assert await handle.result(10) == 1, "the lease went along: it was the first attempt"
            assert (await handle.record()).crashes == 0


async def test_leases_can_be_made_to_end(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch(Add(a=1, b=2))
        with Clock(manager) as clock:
            [first] = await manager.pop_batch(QUEUE, 1, lease=60)
            clock.advance(61)
            assert await manager.pop_batch(QUEUE, 1) == []
            clock.advance(61, leases=True)
            [again] = await manager.pop_batch(QUEUE, 1)
            assert again.id == first.id
            assert again.fencing_token > first.fencing_token
            assert (await manager.job(first.id)).crashes == 1


async def test_moving_it_is_safe_to_send_twice(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch(Add(a=1, b=2))
        [leased] = await manager.pop_batch(QUEUE, 1, lease=60)
        with Clock(manager) as clock:
            clock.freeze()
            key = manager.store.keys.of("running", QUEUE)
            call = manager.store.commands.travel(f"={now_ms() + 5000}", leases_end=False)
            before = await manager.store.client.zscore(key, str(leased.id))
            await manager.store.run_many([call, call])
            after = await manager.store.client.zscore(key, str(leased.id))
            assert before is not None
            assert after == before + 5000


async def test_production_scripts_are_what_they_were(redis_url: str) -> None:
    before = scripts.load("enqueue", flags=True)
    with Clock(redis_url):
        assert scripts.load("enqueue", flags=True).digest != before.digest
    assert scripts.load("enqueue", flags=True) == before
    assert "'clock'" not in before.text
    assert before.text.count("redis.call('TIME')") == 1, "the clock is asked in one place alone"


async def test_what_can_not_be_is_refused(redis_url: str) -> None:
    clock = Clock(redis_url)
    with pytest.raises(WorkerError, match="inside of `with Clock"):
        clock.advance(1)
    with clock:
        with pytest.raises(ConfigError, match="another Clock is in use"):
            Clock(redis_url).__enter__()
        with pytest.raises(InvalidOption, match="advance is -1"):
            clock.advance(-1)
        with pytest.raises(InvalidOption, match="no time zone"):
            clock.travel_to(datetime(2030, 1, 1))  # noqa: DTZ001
        with pytest.raises(InvalidOption, match="a time after 1970"):
            clock.travel_to(datetime(1960, 1, 1, tzinfo=UTC))
        with pytest.raises(InvalidOption, match="freeze is 'now'"):
            clock.freeze("now")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    clock.__exit__(None, None, None)
    with Clock("redis://127.0.0.1:1/0") as away:
        away._store.retry_for = 0.0
        with pytest.raises(BackendError, match=r"127\.0\.0\.1:1"):
            away.advance(1)
    assert abs(now_ms() / 1000 - time.time()) < 5


async def test_nothing_of_it_stays_on_the_server(redis_url: str) -> None:
    with Clock(redis_url) as clock:
        clock.advance(10)
    with redis.Redis.from_url(redis_url) as client:
        assert b"clock" not in client.hgetall("{rf}:server")
