"""Each kind of bad input gets its own clear error at the earliest point, with nothing half-written."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from rf_jobs import Job, JobContext, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model.job import Job as JobBase
from rf_jobs.words.errors import (
    BackendError,
    ConfigError,
    DuplicateJob,
    InvalidOption,
    JobNotFound,
    PayloadTooLarge,
    SerializationError,
    UnknownQueue,
)
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.servers import ephemeral_server
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


async def nothing_written(manager: QueueManager) -> bool:
    keys = await manager.store.client.keys("*")
    return set(keys) <= {b"{rf}:server"}


async def test_a_payload_that_does_not_fit(manager: QueueManager) -> None:
    with pytest.raises(SerializationError, match=r"Add cannot be dispatched: field 'b': expected `int`, got `str`"):
        await manager.dispatch(jobs.Add(a=1, b="two"))  # type: ignore[arg-type]
    with pytest.raises(SerializationError, match="field 'a' holds object"):
        await manager.dispatch_many([jobs.Add(a=1, b=1), jobs.Add(a=object(), b=1)])  # type: ignore[arg-type]
    assert await nothing_written(manager)


async def test_a_payload_over_the_limit(redis_url: str) -> None:
    class Big(Job, name="big"):
        text: str

        async def handle(self, ctx: JobContext) -> None: ...

    async with QueueManager(redis_url) as manager:
        with pytest.raises(
            PayloadTooLarge, match=r"big takes \d+ bytes, the limit \(max_payload_bytes\) is 1048576"
        ) as caught:
            await manager.dispatch(Big(text="x" * 1_048_576))
        assert "reference" in str(caught.value)
        assert await nothing_written(manager)
        await manager.dispatch(Big(text="x" * 1_000_000))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda p: p.delay(-1), "delay is -1"),
        (lambda p: p.delay("soon"), "delay is 'soon'"),
        (lambda p: p.delay(timedelta(days=40_000)), "between 0 and 100 years"),
        (lambda p: p.at(datetime(2030, 1, 1)), "has no time zone"),  # noqa: DTZ001
        (lambda p: p.at("tomorrow"), "give an aware datetime"),
        (lambda p: p.on_queue("a b"), "queue name is 'a b'"),
        (lambda p: p.on_queue("{x}:y"), "no spaces, colons or braces"),
        (lambda p: p.max_attempts(0), "max_attempts is 0"),
        (lambda p: p.priority("urgent"), "priority is 'urgent'"),
        (lambda p: p.expires_in(0), "more than 0"),
        (lambda p: p.tags("x" * 200), "1 to 128 characters"),
        (lambda p: p.tags("\ud800"), "1 to 128 characters"),
        (lambda p: p.delay(10**400), "between 0 and 100 years"),
        (lambda p: p.with_id("7"), "job id is '7'"),
    ],
)
async def test_options_of_a_dispatch(manager: QueueManager, change: object, says: str) -> None:
    pending = manager.dispatch(jobs.Add(a=1, b=1))
    with pytest.raises(InvalidOption, match=says):
        change(pending)  # type: ignore[operator]
    pending.take()
    assert await nothing_written(manager)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quue": "x"}, "did you mean 'queue'"),
        ({"queue": "a b"}, "queue name is 'a b'"),
        ({"max_attempts": 0}, "max_attempts is 0"),
        ({"backoff": -1}, "backoff is -1"),
        ({"backoff": "often"}, "backoff is 'often'"),
        ({"timeout": 0}, "timeout is 0"),
        ({"executor": "gpu"}, "one of thread, process"),
        ({"retry_on": "ValueError"}, "give exception classes"),
        ({"version": 0}, "version is 0"),
    ],
)
def test_options_of_a_class(options: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidOption, match=says):
        type("Bad", (JobBase,), {"handle": lambda self, ctx: None, "__module__": __name__}, **options)


def test_a_class_without_a_handler_or_with_a_taken_field() -> None:
    with pytest.raises(InvalidOption, match=r"has no handle\(self, ctx\)"):
        type("Bad", (JobBase,), {"__module__": __name__})
    with pytest.raises(InvalidOption, match="a field 'queue'"):
        type(
            "Bad",
            (JobBase,),
            {"__annotations__": {"queue": str}, "handle": lambda self, ctx: None, "__module__": __name__},
        )


async def test_a_duplicate_id(manager: QueueManager) -> None:
    mine = uuid4()
    assert await manager.dispatch(jobs.Add(a=1, b=1)).with_id(mine) == mine
    assert await manager.dispatch(jobs.Add(a=1, b=1)).with_id(mine) == mine
    with pytest.raises(DuplicateJob, match=str(mine)):
        await manager.dispatch(jobs.Add(a=2, b=2)).with_id(mine)
    with pytest.raises(DuplicateJob):
        await manager.dispatch_many([manager.dispatch(jobs.Add(a=3, b=2)).with_id(mine)])
    assert await manager.size(QUEUE) == 1
    [queue] = await manager.queues()
    assert (queue.ledger["dispatched"], queue.imbalance) == (1, 0)


async def test_a_closed_manager(redis_url: str) -> None:
    manager = await QueueManager.connect(redis_url)
    await manager.aclose()
    with pytest.raises(BackendError, match="this manager was closed; make a new one"):
        await manager.dispatch(jobs.Add(a=1, b=1))


async def test_an_unreachable_server() -> None:
    with pytest.raises(BackendError, match=r"no answer from the server at redis://127.0.0.1:1/0.*redis_url"):
        await QueueManager.connect("redis://127.0.0.1:1/0", retry_for=0.2)


async def test_a_wrong_password() -> None:
    with ephemeral_server(port=0) as server:
        wrong = server.url.replace(server.url.split(":")[2].split("@")[0], "guess")
        with pytest.raises(BackendError, match="refused us") as caught:
            await QueueManager.connect(wrong, retry_for=0.2)
        assert "guess" not in str(caught.value)


async def test_a_server_that_may_drop_jobs() -> None:
    with (
        ephemeral_server(extra_args=["--maxmemory-policy", "allkeys-lru"]) as server,
        pytest.raises(BackendError, match=r"maxmemory-policy 'allkeys-lru'.*noeviction"),
    ):
        await QueueManager.connect(server.url)


async def test_a_full_server_refuses_dispatch_and_still_drains() -> None:
    with ephemeral_server() as server:
        async with QueueManager(server.url) as manager:
            await manager.dispatch_many([jobs.Add(a=n, b=1) for n in range(50)])
            await manager.store.client.config_set("maxmemory", 1)
            with pytest.raises(BackendError, match="out of memory and takes no more jobs"):
                await manager.dispatch(jobs.Add(a=1, b=1))
            assert (await manager.queues())[0].ledger["dispatched"] == 50
            for leased in await manager.pop_batch(QUEUE, 50):
                await leased.complete()
            assert (await manager.counts(QUEUE))["completed"] == 50


async def test_questions_about_what_is_not_there(manager: QueueManager) -> None:
    with pytest.raises(JobNotFound):
        await manager.job(uuid4())
    with pytest.raises(JobNotFound):
        await manager.wait(uuid4(), 1)
    with pytest.raises(JobNotFound):
        await manager.cancel(uuid4())
    with pytest.raises(UnknownQueue, match="no queue 'nowhere' has ever held a job"):
        await manager.queue("nowhere")


@pytest.mark.parametrize(
    "options", [{"workers": 0}, {"lease": 0.1}, {"queues": "one"}, {"queues": {"a": 0}}, {"speed": 3}, {"timeout": -1}]
)
def test_a_worker_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        WorkerConfig(**options)


def test_several_processes_need_the_supervisor() -> None:
    with pytest.raises(ConfigError, match="rf-jobs worker --processes"):
        WorkerPool(WorkerConfig(processes=2), QueueManager(Settings()))


async def test_a_dropped_dispatch_warns(manager: QueueManager) -> None:
    def drop() -> None:
        manager.dispatch(jobs.Add(a=1, b=1))
        gc.collect()  # where references are not counted

    with pytest.warns(RuntimeWarning, match="the dispatch of Add was never awaited"):
        drop()


async def test_a_manager_of_another_loop_says_so(redis_url: str) -> None:
    manager = await QueueManager.connect(redis_url)
    with pytest.raises(BackendError, match="another event loop"):
        await asyncio.to_thread(lambda: asyncio.run(manager.size("x")))
    await manager.aclose()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\xff\x00junk", "damaged"),
        (b"{}", "damaged"),
        (b'{"v":1,"id":"x","job":"tests.support.jobs:Add","queue":"t","at":1,"args":{"a":"x"}}', "payload"),
    ],
)
async def test_poison_bytes_bury_that_job_alone(manager: QueueManager, data: bytes, reason: str) -> None:
    spoiled = await manager.dispatch(jobs.Add(a=1, b=1))
    fine = await manager.dispatch(jobs.Add(a=2, b=2))
    await manager.store.client.set(manager.store.keys.of("job", str(spoiled)), data)
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        assert await manager.wait(fine, 10) == 4
        with pytest.raises(Exception, match="SerializationError"):
            await manager.wait(spoiled, 10)
    [letter] = await manager.failed_jobs()
    assert letter.last_error is not None
    assert reason in letter.last_error.message
    assert await manager.forget_failed(letter.id)


async def test_a_missing_envelope_and_a_newer_one(manager: QueueManager) -> None:
    gone, newer = await manager.dispatch(jobs.Add(a=1, b=1)), await manager.dispatch(jobs.Add(a=2, b=2))
    await manager.store.client.delete(manager.store.keys.of("job", str(gone)))
    await manager.store.client.set(manager.store.keys.of("job", str(newer)), b'{"v":3,"id":"x"}')
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):

        async def ended() -> bool:
            counts = await manager.counts(QUEUE)
            return (counts["dead"], counts["parked"]) == (1, 1)

        await until(ended, "one is dead, one is parked")
    assert [queue.imbalance for queue in await manager.queues()] == [0]


async def test_an_unknown_class_waits_for_a_worker_that_knows_it(manager: QueueManager) -> None:
    from rf_jobs.model.jobclass import Registry, registry

    job = await manager.dispatch(jobs.Add(a=1, b=1))
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager, registry=Registry()):

        async def parked() -> bool:
            return (await manager.job(job)).state == "parked"

        await until(parked, "it is parked")
    record = await manager.job(job)
    assert (record.attempt, "no worker knows" in record.reason) == (0, True)
    async with WorkerPool(WorkerConfig(queues=[QUEUE], lease=1), manager, registry=registry):
        assert await manager.wait(job, 10) == 2
