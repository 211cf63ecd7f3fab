"""``drain``: real workers run what waits until nothing is left."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from rf_jobs import (
    BackendError,
    ExecutionFailed,
    InvalidOption,
    Job,
    JobContext,
    Queue,
    QueueManager,
    Rate,
    Retry,
    Snooze,
    WorkerError,
)
from rf_jobs.testing import Clock, drain
from tests.support.jobs import QUEUE, Add, Fails, Sleeps, Steered


class Tree(Job, queue="tree"):
    """Dispatches two like itself, to a queue of their own."""

    depth: int
    delay: float = 0.0

    async def handle(self, ctx: JobContext) -> None:
        if self.depth:
            for side in "lr":
                await Queue.on(f"tree-{side}").dispatch(Tree(depth=self.depth - 1, delay=self.delay)).delay(self.delay)


class Patient(Job, queue="patient", max_attempts=3, backoff=3600):
    """Takes two retries and a snooze."""

    async def handle(self, ctx: JobContext) -> str:
        if ctx.attempt == 1:
            raise ValueError("first")
        if ctx.attempt == 2:
            raise Retry("second", delay=7200)
        if ctx.state is None:
            await ctx.checkpoint("asleep")
            raise Snooze(timedelta(days=1))
        return "at last"


class Eternal(Job, queue="eternal"):
    delay: float = 0.0

    async def handle(self, ctx: JobContext) -> None:
        await ctx.manager.dispatch(Eternal(delay=self.delay)).delay(self.delay)


class InThread(Job, queue="thread"):
    def handle(self, ctx: JobContext) -> None:
        Queue.dispatch(Add(a=1, b=1)).sync()


class Limited(Job, queue="limited", rate=Rate(2, per=60)):
    number: int

    async def handle(self, ctx: JobContext) -> None: ...


async def test_all_that_is_due_runs_and_the_rest_is_told(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch_many([Add(a=n, b=0) for n in range(30)])
        await manager.dispatch(Add(a=1, b=2)).delay(3600)
        await manager.dispatch(Tree(depth=0))
        await manager.pause("tree")
        done = await drain(manager)
        assert (done.completed, done.attempts, done.dead) == (30, 30, 0)
        assert done.left == {QUEUE: {"scheduled": 1}, "tree": {"ready": 1}}
        assert (await drain(manager)).attempts == 0
        assert await manager.workers() == []


async def test_what_jobs_dispatch_runs_too_wherever_it_goes(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch(Tree(depth=3))
        await manager.dispatch(InThread())
        done = await drain(manager)
        assert done.completed == 1 + 2 + 4 + 8 + 2
        assert done.left == {}


async def test_with_scheduled_goes_on_to_each_ones_time(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        job_id = await manager.dispatch(Patient()).delay(600)
        await manager.dispatch(Tree(depth=2, delay=60))
        began = time.monotonic()
        done = await drain(manager, with_scheduled=True)
        assert time.monotonic() - began < 20
        assert (done.completed, done.retried, done.snoozed, done.left) == (8, 2, 1, {})
        record = await manager.job(job_id)
        assert record.result == "at last"
        assert record.dispatched_at is not None
        assert record.finished_at is not None
        life = record.finished_at - record.dispatched_at
        expected = timedelta(seconds=600 + 3600 + 7200, days=1)
        assert timedelta(0) <= life - expected < timedelta(seconds=30)
        assert [e.type for e in record.errors] == ["ValueError", "rf_jobs.words.control.Retry"]


async def test_it_moves_the_clock_that_is_in_use_and_not_too_far(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        with Clock(manager) as clock:
            began = clock.now()
            await manager.dispatch(Add(a=1, b=2)).delay(60)
            await manager.dispatch(Add(a=1, b=2)).delay(7200)
            done = await drain(manager, with_scheduled=True, until=3600)
            assert (done.completed, done.left) == (1, {QUEUE: {"scheduled": 1}})
            assert timedelta(seconds=60) <= clock.now() - began < timedelta(seconds=90)
            done = await drain(manager, with_scheduled=True, clock=clock, until=began + timedelta(hours=3))
            assert (done.completed, done.left) == (1, {})
        with Clock(manager) as clock:
            clock.freeze(datetime(2030, 1, 1, tzinfo=UTC))
            await manager.dispatch(Add(a=1, b=2)).at(datetime(2030, 1, 2, tzinfo=UTC))
            assert (await drain(manager, with_scheduled=True)).completed == 1
            assert clock.now() == datetime(2030, 1, 2, tzinfo=UTC)


async def test_without_with_scheduled_time_stays(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        with Clock(manager) as clock:
            await manager.dispatch(Add(a=1, b=2)).delay(60)
            assert (await drain(manager)).attempts == 0
            clock.advance(61)
            assert (await drain(manager)).completed == 1


async def test_limits_let_go_in_their_time(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch_many([Limited(number=n) for n in range(6)])
        done = await drain(manager)
        assert (done.completed, done.left) == (2, {"limited": {"blocked": 4}})
        done = await drain(manager, with_scheduled=True)
        assert (done.completed, done.left) == (4, {})


async def test_a_death_is_raised_or_told(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch(Fails())
        with pytest.raises(
            ExecutionFailed, match=r"a job died while draining: .*Fails .* on 't', attempt 3: Runtime"
        ) as why:
            await drain(manager)
        assert why.value.error_type == "RuntimeError"
        assert "in handle" in why.value.traceback
        assert why.value.__notes__ == [why.value.traceback]
        await manager.dispatch(Fails())
        await manager.dispatch(Steered(how="fail"))
        await manager.dispatch(Steered(how="discard"))
        await manager.dispatch(Add(a=1, b=2)).expires_in(0.001)
        with Clock(manager) as clock:
            clock.advance(1)
            done = await drain(manager, raise_errors=False)
        assert (done.dead, done.retried, done.cancelled, done.expired) == (2, 2, 1, 1)
        assert sorted(dead.error_type for dead in done.died) == ["RuntimeError", "rf_jobs.words.control.Fail"]
        assert {dead.queue for dead in done.died} == {QUEUE}
        await manager.dispatch_many([Fails(), Fails()])
        with pytest.raises(ExecutionFailed, match=r"1 more died:\n  .*Fails"):
            await drain(manager)


async def test_jobs_of_dead_workers_are_taken_back(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        job_id = await manager.dispatch(Add(a=1, b=2))
        await manager.pop_batch(QUEUE, 1, lease=60)
        with Clock(manager) as clock:
            clock.advance(61, leases=True)
            done = await drain(manager)
            assert (done.reclaimed, done.completed) == (1, 1)
            assert await manager.wait(job_id, 5) == 3
            poison = await manager.dispatch(Add(a=1, b=2))
            for crash in (1, 2, 3):
                await manager.pop_batch(QUEUE, 1, lease=60)
                clock.advance(61, leases=True)
                assert (await drain(manager, queues=["none"])).reclaimed == 0, "only of the queues that are drained"
                await manager.pause(QUEUE)
                done = await drain(manager, raise_errors=False)
                await manager.resume(QUEUE)
                assert (done.reclaimed, done.dead, done.attempts) == (1, crash // 3, crash // 3)
            assert [(dead.id, dead.error_type) for dead in done.died] == [(poison, "WorkerLost")]


async def test_some_queues_only(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch(Add(a=1, b=2))
        await manager.dispatch(Tree(depth=0))
        done = await drain(manager, queues=["tree"])
        assert (done.completed, done.left) == (1, {})
        assert await manager.size(QUEUE) == 1


async def test_jobs_without_an_end_are_noticed(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await manager.dispatch(Eternal())
        with pytest.raises(WorkerError, match=r"attempts ended, limit is 50, and more jobs are there; .*'eternal'"):
            await drain(manager, limit=50)
        await manager.clear("eternal")
        await manager.dispatch(Eternal(delay=3600))
        done = await drain(manager, with_scheduled=True, until=timedelta(hours=5, minutes=30))
        assert (done.completed, done.left) == (6, {"eternal": {"scheduled": 1}})
        await manager.dispatch(Sleeps(seconds=30))
        with pytest.raises(WorkerError, match=r"not done after 0.2 s; still there: .*'running': 1"):
            await drain(manager, timeout=0.2)


async def test_what_can_not_be_is_refused(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        for limit in (0, True, "many"):
            with pytest.raises(InvalidOption, match="limit is"):
                await drain(manager, limit=limit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        with pytest.raises(InvalidOption, match="queue name is 'a b'"):
            await drain(manager, queues=["a b"])
        with pytest.raises(InvalidOption, match="timeout is -1"):
            await drain(manager, timeout=-1)
        with pytest.raises(InvalidOption, match="until is"):
            await drain(manager, with_scheduled=True, until=-5)
    away = QueueManager("redis://127.0.0.1:1/0", retry_for=0)
    with pytest.raises(BackendError):
        await drain(away)
    await away.aclose()
