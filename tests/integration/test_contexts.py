"""What a handler is told, wherever it runs, and what its errors become."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from rf_jobs import (
    Envelope,
    ExecutionFailed,
    Headers,
    JobError,
    JobTimeout,
    Middleware,
    QueueManager,
    StaleLease,
    WorkerConfig,
    WorkerPool,
)
from tests.support.contexts import (
    QUEUE,
    Apart,
    CardError,
    Charge,
    Collects,
    OnLoop,
    OnThread,
    Robbed,
    Timed,
    heard,
)
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], grace=1)


class Tenant(Middleware):
    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        if envelope.queue == QUEUE:
            headers.bg = {"tenant": "7", "region": "north"}


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    heard.clear()
    async with QueueManager(redis_url, middleware=[Tenant()]) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} == {0}


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(CONFIG, manager) as running:
        yield running


@pytest.mark.parametrize("job", [OnLoop(), OnThread(), Apart()], ids=lambda job: type(job).__name__)
async def test_every_kind_of_handler_is_told_the_same(manager: QueueManager, pool: WorkerPool, job: Any) -> None:
    job_id = await manager.dispatch(job).tags("tenant:7").max_attempts(4)
    [said] = await manager.wait(job_id, 30)
    record = await manager.job(job_id)
    dispatched, started, deadline = (
        datetime.fromisoformat(said.pop(each)) for each in ("dispatched", "started", "deadline")
    )
    assert said.pop("fence") > 0
    assert said == {
        "job_id": str(job_id), "queue": QUEUE, "attempt": 1, "max_attempts": 4, "final": False,
        "headers": {"tenant": "7", "region": "north"}, "key": str(job_id), "tags": ["mine", "tenant:7"],
        "stop": [False, False], "chain": None, "batch": None,
    }  # fmt: skip
    assert (dispatched, started) == (record.dispatched_at, record.started_at)
    assert {each.utcoffset() for each in (dispatched, started, deadline)} == {timedelta(0)}
    assert dispatched <= started
    assert timedelta(seconds=60) <= deadline - started < timedelta(seconds=90)


async def test_over_the_attempts_the_key_stays_and_the_fence_grows(manager: QueueManager, pool: WorkerPool) -> None:
    job_id = await manager.dispatch(OnLoop(fails=2))
    said = await manager.wait(job_id, 30)
    assert {each["key"] for each in said} == {str(job_id)}
    assert [each["attempt"] for each in said] == [1, 2, 3]
    assert [each["final"] for each in said] == [False, False, True]
    fences = [each["fence"] for each in said]
    assert fences == sorted(set(fences))
    starts = [each["started"] for each in said]
    assert starts == sorted(starts)
    assert len({each["dispatched"] for each in said}) == 1


async def test_what_the_jobs_before_it_returned(manager: QueueManager, pool: WorkerPool) -> None:
    alone = await manager.dispatch(Collects()).result(30)
    assert alone == {"follows": 0, "inputs": {}, "previous": None}
    first, second, silent = await manager.dispatch_many([Timed(limit=90), Timed(limit=90), Charge(custom=False)])
    one = await manager.dispatch(Collects()).depends_on(first).result(30)
    assert one["follows"] == 1
    assert one["inputs"] == {str(first): one["previous"]}
    assert one["previous"] >= 90
    many = await manager.dispatch(Collects()).depends_on(first, second, silent, on_failure="run").result(30)
    assert many["follows"] == 3
    assert set(many["inputs"]) == {str(first), str(second)}, "the third has failed and returned nothing"
    assert sorted(many["previous"]) == sorted(many["inputs"].values())


async def test_without_a_middleware_there_are_no_headers(redis_url: str) -> None:
    async with QueueManager(redis_url) as plain, WorkerPool(CONFIG, plain):
        [said] = await plain.dispatch(OnLoop()).result(30)
        assert said["headers"] == {}


@pytest.mark.parametrize(("limit", "seconds"), [(90, 90), (0.5, 0.5), (None, 60), (-1, 60), ("broken", 30)])
async def test_a_job_says_how_long_it_may_take(
    manager: QueueManager, pool: WorkerPool, limit: Any, seconds: float
) -> None:
    assert seconds <= await manager.dispatch(Timed(limit=limit)).result(30) < seconds + 20


async def test_its_own_timeout_ends_it(manager: QueueManager, pool: WorkerPool) -> None:
    job_id = await manager.dispatch(Timed(limit=0.2, hangs=True))
    with pytest.raises(JobTimeout, match=r"0\.2 s") as caught:
        await manager.wait(job_id, 30)
    assert 0.1 <= caught.value.after < 20
    assert (await manager.job(job_id)).reason == "timeout"


async def test_an_error_of_ones_own_reaches_failed_as_it_is(manager: QueueManager, pool: WorkerPool) -> None:
    with pytest.raises(ExecutionFailed, match="card 4711 was refused") as caught:
        await manager.dispatch(Charge(custom=True)).result(30)
    assert type(caught.value) is ExecutionFailed, "the class is not rebuilt from the store"
    assert caught.value.error_type == "tests.support.contexts.CardError"
    [error] = heard
    assert isinstance(error, CardError)
    assert (error.card, str(error)) == ("4711", "card 4711 was refused")


async def test_any_other_error_reaches_failed_as_the_cause(manager: QueueManager, pool: WorkerPool) -> None:
    with pytest.raises(ExecutionFailed):
        await manager.dispatch(Charge(custom=False)).result(30)
    [error] = heard
    assert isinstance(error, ExecutionFailed)
    assert isinstance(error.__cause__, ConnectionError)
    assert (error.error_type, str(error)) == ("ConnectionError", "ConnectionError: no answer")


@pytest.mark.parametrize("how", ["checkpoint", "step"])
async def test_who_lost_the_lease_can_save_nothing(manager: QueueManager, pool: WorkerPool, how: str) -> None:
    job_id = await manager.dispatch(Robbed(how=how))

    async def was_told() -> list[JobError]:
        return list(heard)

    [error] = await until(was_told, "the handler was told")
    assert "the lease of job" in str(error)
    kinds = "checkpoint", "steps"
    assert [await manager.store.client.exists(manager.store.keys.of(kind, str(job_id))) for kind in kinds] == [0, 0]
    record = await manager.job(job_id)
    assert (record.state, record.errors) == ("running", []), "it is the other's now"


@pytest.mark.parametrize("end", ["complete", "retry", "release", "extend", "fail"])
async def test_a_lease_by_hand_that_another_has_now(manager: QueueManager, end: str) -> None:
    job_id = await manager.dispatch(OnThread())
    [first] = await manager.pop_batch(QUEUE, 1)
    await manager.store.client.zadd(manager.store.keys.of("running", QUEUE), {str(job_id): 1})
    [second] = await manager.pop_batch(QUEUE, 1)
    assert second.fencing_token > first.fencing_token
    with pytest.raises(StaleLease, match=f"the lease of job {job_id} is no longer held"):
        await (first.fail("late") if end == "fail" else getattr(first, end)())
    assert (await manager.job(job_id)).state == "running"
    await second.complete(7)
    assert await manager.wait(job_id, 10) == 7
    with pytest.raises(StaleLease, match="was ended before"):
        await second.fail("and again")
