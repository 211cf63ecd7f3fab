"""Classes whose jobs run together: ``handle_many``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Self
from uuid import UUID

import pytest
import redis
from opentelemetry import trace

from rf_jobs import (
    Discard,
    Encrypted,
    Fail,
    Job,
    JobContext,
    JobRecord,
    Middleware,
    QueueManager,
    Retry,
    Snooze,
    WorkerConfig,
    WorkerPool,
)
from rf_jobs.model.events import Event, JobCompleted, JobDied, JobReclaimed, JobReleased, JobsFetched, JobStarted
from rf_jobs.model.middleware import Handle
from rf_jobs.testing import drain, inline
from rf_jobs.words.errors import JobError
from rf_jobs.words.timing import mono
from tests.support.jobs import QUEUE as JOBS_QUEUE
from tests.support.jobs import Deadly, Pids
from tests.support.processes import process, rf_jobs
from tests.support.sealed import key, settings
from tests.support.tracing import at, attribute, context, lab, seen
from tests.support.waiting import until

QUEUE = "many"
LONG = 60.0
"""A wait that no test lasts: what ends before it did not wait for it."""


class Recorded(Job, queue=QUEUE, backoff=3600, max_attempts=2, abstract=True):
    n: int = 0

    calls: ClassVar[list[list[int]]] = []
    hold: ClassVar[asyncio.Event | None] = None
    entered: ClassVar[asyncio.Event | None] = None
    contexts: ClassVar[list[JobContext]] = []

    @classmethod
    async def record(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        Recorded.calls.append([job.n for job in jobs])
        Recorded.contexts = ctxs
        assert [ctx.job_class for ctx in ctxs] == [cls.__job_class__.name] * len(jobs)
        if Recorded.entered is not None:
            Recorded.entered.set()
        if Recorded.hold is not None:
            await Recorded.hold.wait()


class Five(Recorded, many=5, many_wait=LONG):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> list[int]:
        await cls.record(jobs, ctxs)
        return [job.n * 10 for job in jobs]


class Hundred(Recorded, many=100, many_wait=LONG):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        await cls.record(jobs, ctxs)


class Brief(Recorded, many=100, many_wait=0.1):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        await cls.record(jobs, ctxs)


class Together(Recorded, many=6, many_wait=LONG):
    """Answers with what ``say`` makes of each job."""

    say: ClassVar[Callable[[list[int]], Any]] = list

    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> Any:
        await cls.record(jobs, ctxs)
        return cls.say([job.n for job in jobs])


class InThread(Recorded, many=3, many_wait=LONG):
    @staticmethod
    def handle_many(jobs: list[InThread], ctxs: list[JobContext]) -> list[str]:
        return [threading.current_thread().name for _ in jobs]


class Single(Job, queue=QUEUE):
    async def handle(self, ctx: JobContext) -> str:
        return "ran"


class Told(Recorded, many=3, many_wait=LONG, backoff=0, max_attempts=1, timeout=30):
    """Its ``failed`` takes its time; all of them together no more than one."""

    waiting: ClassVar[set[str]] = set()
    all_there: ClassVar[asyncio.Event]

    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        raise ValueError("all of them")

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        assert "all of them" in str(error)
        Told.waiting.add(ctx.id)
        if len(Told.waiting) == 3:
            Told.all_there.set()
        await Told.all_there.wait()


class Slow(Recorded, many=3, many_wait=LONG, timeout=0.3, max_attempts=1):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        await cls.record(jobs, ctxs)
        await asyncio.Event().wait()


class Extends(Recorded, many=2, many_wait=LONG, timeout=0.6, max_attempts=1):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        await ctxs[1].extend(60)
        await asyncio.sleep(1.0)


@pytest.fixture(autouse=True)
def _afresh() -> None:
    Recorded.calls, Recorded.hold, Recorded.entered = [], None, None


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0] * len(await running.queues())


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as one:
        yield one


def config(slots: int = 4) -> WorkerConfig:
    return WorkerConfig(queues=[QUEUE], workers=slots, max_concurrent_jobs=1, sleep=5, grace=20)


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(config(), manager) as running:
        yield running


async def ended(manager: QueueManager, ids: list[UUID]) -> list[JobRecord]:
    for job_id in ids:
        with contextlib.suppress(JobError):
            await manager.wait(job_id, 20)
    return [await manager.job(job_id) for job_id in ids]


async def in_state(manager: QueueManager, state: str, count: int) -> None:
    async def look() -> bool:
        return (await manager.counts(QUEUE))[state] == count

    await until(look, f"{count} jobs {state}")


async def test_a_full_crowd_runs_at_once_and_each_has_its_result(manager: QueueManager, pool: WorkerPool) -> None:
    ids = await manager.dispatch_many([Five(n=n) for n in range(5)])
    assert [await manager.wait(each, 20) for each in ids] == [0, 10, 20, 30, 40]
    assert Recorded.calls == [[0, 1, 2, 3, 4]]


async def test_more_than_the_slots_are_gathered(manager: QueueManager) -> None:
    fetches: list[int] = []
    manager.bus.subscribe(JobsFetched, lambda event: fetches.append(event.count) if event.count else None)
    async with WorkerPool(config(slots=2), manager) as pool:
        ids = await manager.dispatch_many([Hundred(n=n) for n in range(100)])
        await ended(manager, ids)
        assert [len(call) for call in Recorded.calls] == [100]
        assert pool.done == 100
    assert len(fetches) < 15, "each fetch brings more than the last, since none of it takes a slot"


async def test_fewer_wait_no_longer_than_they_may(manager: QueueManager, pool: WorkerPool) -> None:
    ids = await manager.dispatch_many([Brief(n=n) for n in range(3)])
    began = mono()
    await ended(manager, ids)
    assert sorted(Recorded.calls[0]) == [0, 1, 2]
    assert mono() - began < 5


async def test_those_that_wait_take_no_slot(manager: QueueManager) -> None:
    async with WorkerPool(config(slots=1), manager):
        await manager.dispatch_many([Five(n=n) for n in range(4)])
        await in_state(manager, "running", 4)
        assert await manager.dispatch(Single()).result(20) == "ran"
        assert Recorded.calls == []
        await manager.dispatch(Five(n=4))
        await in_state(manager, "completed", 6)


class Patient(Recorded, many=3, many_wait=2.5):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> list[int]:
        return [ctx.attempt for ctx in ctxs]


async def test_those_that_wait_keep_their_leases(manager: QueueManager) -> None:
    taken: list[Event] = []
    manager.bus.subscribe(JobReclaimed, taken.append)
    async with WorkerPool(WorkerConfig(queues=[QUEUE], lease=1, sleep=5), manager):
        ids = await manager.dispatch_many([Patient(), Patient()])
        assert [await manager.wait(each, 20) for each in ids] == [1, 1]
    assert taken == []


async def test_a_value_for_each(manager: QueueManager, pool: WorkerPool) -> None:
    says: list[Any] = ["fine", ValueError("bad"), Retry(delay=7200), Snooze(7200), Discard("no use"), Fail("never")]
    Together.say = lambda numbers: [says[n] for n in numbers]
    ids = await manager.dispatch_many([Together(n=n) for n in range(6)])
    await in_state(manager, "running", 0)
    await in_state(manager, "scheduled", 3)
    records = [await manager.job(each) for each in ids]
    assert [record.state for record in records] == [
        "completed", "scheduled", "scheduled", "scheduled", "cancelled", "dead",
    ]  # fmt: skip
    assert records[0].result == "fine"
    assert [error.message for error in records[1].errors] == ["bad"]
    assert [record.attempt for record in records] == [1, 1, 1, 0, 1, 1], "a snooze is no attempt"
    assert records[5].reason == "requested"


async def test_what_it_raises_is_everybodys(manager: QueueManager, pool: WorkerPool) -> None:
    Together.say = lambda numbers: [][numbers[0]]
    ids = await manager.dispatch_many([Together(n=n) for n in range(6)])
    await in_state(manager, "scheduled", 6)
    for record in [await manager.job(each) for each in ids]:
        assert [(error.type, error.attempt) for error in record.errors] == [("IndexError", 1)]


@pytest.mark.parametrize(("answer", "what"), [(["one"], "1 values"), ({"a": 1}, "a dict")])
async def test_an_answer_of_another_form(manager: QueueManager, pool: WorkerPool, answer: Any, what: str) -> None:
    Together.say = lambda numbers: answer
    ids = await manager.dispatch_many([Together(n=n) for n in range(6)])
    for record in await ended(manager, ids):
        assert record.state == "dead"
        assert record.last_error is not None
        assert f"returned {what} for 6 jobs; return None, or one value for each" in record.last_error.message


async def test_a_thread(manager: QueueManager, pool: WorkerPool) -> None:
    ids = await manager.dispatch_many([InThread(), InThread(), InThread()])
    names = {await manager.wait(each, 20) for each in ids}
    assert len(names) == 1
    assert names.pop().startswith("rf-jobs-")


async def test_a_poison_payload_does_not_spoil_its_neighbours(
    manager: QueueManager, pool: WorkerPool, client: redis.Redis
) -> None:
    poison = await manager.dispatch(Five(n=99)).delay(3600)
    key = manager.store.keys.of("job", str(poison))
    client.set(key, bytes(client.get(key) or b"").replace(b'"n":99', b'"n":"text"'))  # type: ignore[arg-type]
    client.zadd(manager.store.keys.of("later", QUEUE), {str(poison): 1})
    ids = await manager.dispatch_many([Five(n=n) for n in range(5)])
    assert [record.state for record in await ended(manager, [*ids, poison])] == [*["completed"] * 5, "dead"]
    assert len(Recorded.calls) == 1


async def test_a_timeout_is_the_whole_runs(manager: QueueManager, pool: WorkerPool) -> None:
    ids = await manager.dispatch_many([Slow(n=n) for n in range(3)])
    for record in await ended(manager, ids):
        assert (record.state, record.reason) == ("dead", "timeout")
    assert len(Recorded.calls) == 1


async def test_one_member_asks_for_more_time_for_all(manager: QueueManager, pool: WorkerPool) -> None:
    ids = await manager.dispatch_many([Extends(), Extends()])
    assert [record.state for record in await ended(manager, ids)] == ["completed", "completed"]


async def test_a_member_is_cancelled(manager: QueueManager, pool: WorkerPool) -> None:
    Recorded.hold, Recorded.entered = asyncio.Event(), asyncio.Event()
    ids = await manager.dispatch_many([Five(n=n) for n in range(5)])
    await asyncio.wait_for(Recorded.entered.wait(), 20)
    assert await manager.cancel(ids[2])

    async def told() -> bool:
        return any(ctx.cancelled for ctx in Recorded.contexts)

    await until(told, "its context says so")
    assert [ctx.id for ctx in Recorded.contexts if ctx.cancelled] == [str(ids[2])]
    Recorded.hold.set()
    assert [record.state for record in await ended(manager, ids)] == [
        "completed", "completed", "cancelled", "completed", "completed",
    ]  # fmt: skip


async def test_nobody_wants_it_any_more(manager: QueueManager, pool: WorkerPool) -> None:
    Recorded.hold, Recorded.entered = asyncio.Event(), asyncio.Event()
    ids = await manager.dispatch_many([Five(n=n) for n in range(5)])
    await asyncio.wait_for(Recorded.entered.wait(), 20)
    for each in ids:
        assert await manager.cancel(each)
    assert {record.state for record in await ended(manager, ids)} == {"cancelled"}, "the call itself was cancelled"


async def test_one_that_waits_is_cancelled(manager: QueueManager, pool: WorkerPool) -> None:
    ids = await manager.dispatch_many([Five(n=n) for n in range(4)])
    await in_state(manager, "running", 4)
    assert await manager.cancel(ids[0])

    async def told() -> bool:
        return any(attempt.stop for attempt in pool._engine._held.values())

    await until(told, "the worker has heard of it")
    ids.append(await manager.dispatch(Five(n=4)))
    assert [record.state for record in await ended(manager, ids)] == ["cancelled", *["completed"] * 4]
    assert Recorded.calls == [[1, 2, 3, 4]]


async def test_failed_is_called_for_each_and_not_one_after_the_other(manager: QueueManager, pool: WorkerPool) -> None:
    Told.waiting, Told.all_there = set(), asyncio.Event()
    ids = await manager.dispatch_many([Told(), Told(), Told()])
    assert {record.state for record in await ended(manager, ids)} == {"dead"}
    assert Told.waiting == {str(each) for each in ids}


async def test_a_shutdown_hands_back_those_that_wait(manager: QueueManager) -> None:
    released: list[Event] = []
    manager.bus.subscribe(JobReleased, released.append)
    async with WorkerPool(config(), manager):
        await manager.dispatch_many([Five(n=n) for n in range(3)])
        await in_state(manager, "running", 3)
    counts = await manager.counts(QUEUE)
    assert (counts["ready"], counts["running"], len(released)) == (3, 0, 3)
    assert Recorded.calls == []


async def test_a_shutdown_hands_back_a_crowd_that_will_not_end(manager: QueueManager) -> None:
    Recorded.hold, Recorded.entered = asyncio.Event(), asyncio.Event()
    pool = WorkerPool(config(), manager)
    await pool.start()
    ids = await manager.dispatch_many([Five(n=n) for n in range(5)])
    await asyncio.wait_for(Recorded.entered.wait(), 20)
    await pool.shutdown(0.05)
    assert [(record.state, record.attempt) for record in [await manager.job(each) for each in ids]] == [
        ("ready", 0)
    ] * 5


class Soon(Recorded, many=100, many_wait=0.5):
    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        Recorded.calls.append([job.n for job in jobs])


class Holds(Recorded):
    async def handle(self, ctx: JobContext) -> None:
        await self.record([self], [ctx])


async def test_a_crowd_that_finds_no_slot_is_left_to_other_workers(manager: QueueManager) -> None:
    Recorded.hold, Recorded.entered = asyncio.Event(), asyncio.Event()
    released: list[Event] = []
    manager.bus.subscribe(JobReleased, released.append)
    async with WorkerPool(config(slots=1), manager):
        await manager.dispatch_many([Soon(n=n) for n in range(3)])
        await in_state(manager, "running", 3)
        await manager.dispatch(Holds())
        await asyncio.wait_for(Recorded.entered.wait(), 20)
        await in_state(manager, "ready", 3)
        assert len(released) == 3
        Recorded.hold.set()
        await in_state(manager, "completed", 4)
    assert sorted(Recorded.calls[-1]) == [0, 1, 2]


async def test_each_is_inside_the_middlewares(manager: QueueManager) -> None:
    seen: list[tuple[str, object]] = []

    class Watches(Middleware):
        async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
            if job.n == 3:
                raise PermissionError("not this one")
            try:
                value = await handle()
            except ValueError as error:
                seen.append((ctx.id, str(error)))
                raise
            seen.append((ctx.id, value))
            return f"{value}!"

    manager.middleware.add(Watches())
    Together.say = lambda numbers: [ValueError("odd") if n == 1 else n for n in numbers]
    events: list[str] = []
    for kind in (JobStarted, JobCompleted):
        manager.bus.subscribe(kind, lambda event: events.append(type(event).__name__))
    async with WorkerPool(config(), manager):
        ids = await manager.dispatch_many([Together(n=n) for n in range(6)])
        await in_state(manager, "scheduled", 2)
        await in_state(manager, "completed", 4)
    assert Recorded.calls == [[0, 1, 2, 4, 5]]
    assert dict(seen) == {str(ids[n]): "odd" if n == 1 else n for n in (0, 1, 2, 4, 5)}
    records = [await manager.job(each) for each in ids]
    assert [record.result for record in records] == ["0!", None, "2!", None, "4!", "5!"]
    assert [error.type for record in records for error in record.errors] == ["ValueError", "PermissionError"]
    assert (events.count("JobStarted"), events.count("JobCompleted")) == (6, 4)


class Spanned(Job, queue="traced", many=3, many_wait=LONG, max_attempts=1):
    n: int

    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> list[object]:
        seen.append(trace.get_current_span().get_span_context())
        return [ValueError("odd") if job.n == 1 else "fine" for job in jobs]


async def test_each_has_its_span(redis_url: str) -> None:
    async with lab(redis_url) as it:
        ids = [await it.manager.dispatch(Spanned(n=n)) for n in range(3)]
        await it.until(JobDied)
        await it.until(JobCompleted, 2)
        spans = await it.many("process traced", 3)
    assert {attribute(span, "messaging.message.id") for span in spans} == {str(each) for each in ids}
    assert len({context(span).span_id for span in spans}) == 3
    outcomes = {attribute(span, "messaging.message.id"): attribute(span, "rf_jobs.job.outcome") for span in spans}
    assert [outcomes[str(each)] for each in ids] == ["success", "dead", "success"]
    assert at(seen[0]) in [context(span) for span in spans], "what the one call traces belongs to one of them"


async def test_a_suspect_runs_alone_in_a_process_of_its_own(manager: QueueManager, client: redis.Redis) -> None:
    job_id = await manager.dispatch(Pids()).on_queue(QUEUE)
    key = manager.store.keys.of("meta", str(job_id))
    client.hset(key, mapping={"state": "ready", "crashes": "2", "epoch": "1", "attempt": "0"})
    async with WorkerPool(config(), manager):
        assert await manager.wait(job_id, 30) != os.getpid()


@pytest.mark.timeout(120)
async def test_one_that_kills_its_worker_is_found_and_its_neighbours_complete(
    manager: QueueManager, redis_url: str, tmp_path: Path
) -> None:
    quiet = {"RF_JOBS_TELEMETRY_TRACING": "false", "RF_JOBS_TELEMETRY_METRICS": "false"}
    command = rf_jobs("worker", "tests.support.jobs", "--queues", JOBS_QUEUE, "--redis-url", redis_url)
    ids = await manager.dispatch_many([Deadly(), Deadly(kills=True), Deadly()])
    with process(*command, log=tmp_path / "log", env=quiet):

        async def over() -> bool:
            counts = await manager.counts(JOBS_QUEUE)
            return counts["completed"] + counts["dead"] == 3

        await until(over, "all three have ended", 90)
    records = [await manager.job(each) for each in ids]
    assert [record.state for record in records] == ["completed", "dead", "completed"]
    assert (records[1].reason, records[1].crashes) == ("poison", 3)
    assert [(record.result, record.crashes) for record in records[::2]] == [(1, 2), (1, 2)], "each ran alone at last"


async def test_inline_and_drained(manager: QueueManager) -> None:
    """With the helpers for tests of those who use rf-jobs."""
    Together.say = lambda numbers: [n * 2 for n in numbers]
    with inline() as queue:
        assert await queue.dispatch(Together(n=4)).result() == 8
        assert await queue.dispatch(InThread()).result() != threading.current_thread().name
    ids = await manager.dispatch_many([Brief(n=n) for n in range(5)])
    await drain(manager)
    assert [record.state for record in [await manager.job(each) for each in ids]] == ["completed"] * 5
    assert sorted(Recorded.calls[-1]) == list(range(5))


class Confidential(Job, queue=QUEUE, many=3, many_wait=LONG, max_attempts=1):
    secret: Encrypted[str]

    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> None:
        raise ValueError(f"the bulk request was refused: {[job.secret for job in jobs]}")


@pytest.mark.parametrize("wrapped", [False, True])
async def test_an_error_of_all_shows_nobodys_secrets(redis_url: str, wrapped: bool) -> None:
    class Passes(Middleware):
        async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
            return await handle()

    target = settings(redis_url, key("k1"))
    layers = [Passes()] if wrapped else []
    async with QueueManager(target, middleware=layers) as manager, WorkerPool(config(), manager):
        secrets = [f"canary-{n}-{'x' * n}" for n in range(3)]
        ids = await manager.dispatch_many([Confidential(secret=secret) for secret in secrets])
        for record in await ended(manager, ids):
            assert record.last_error is not None
            told = record.last_error.message + record.last_error.traceback
            assert "the bulk request was refused" in told
            assert "canary" not in told
