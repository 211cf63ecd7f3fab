"""Jobs, hooks and outcomes that do their worst: the worker goes on with the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from rf_jobs import Job, JobContext, QueueManager, Snooze, WorkerConfig, WorkerPool
from rf_jobs.words.errors import ExecutionFailed, InvalidOption, JobError
from tests.support.processes import in_fresh_interpreter

QUEUE = "stubborn"


class Panic(BaseException):
    """As extension modules raise it."""


class Raises(Job, queue=QUEUE, max_attempts=1):
    what: str
    KINDS: ClassVar[dict[str, type[BaseException]]] = {
        "panic": Panic,
        "exit": SystemExit,
        "cancelled": asyncio.CancelledError,
        "interrupt": KeyboardInterrupt,
    }

    async def handle(self, ctx: JobContext) -> None:
        raise self.KINDS[self.what]("by the job")


class Hooked(Raises, queue=QUEUE, max_attempts=1):
    async def handle(self, ctx: JobContext) -> None:
        raise ValueError("first")

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        raise self.KINDS[self.what]("by the hook")


class CancelsItself(Job, queue=QUEUE, max_attempts=1):
    async def handle(self, ctx: JobContext) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)


class Sound(Job, queue=QUEUE):
    async def handle(self, ctx: JobContext) -> str:
        return "sound"


class Strange(Job, queue=QUEUE, max_attempts=2):
    async def handle(self, ctx: JobContext) -> str:
        if ctx.attempt == 1:
            raise Snooze(60, "caf\udce9.txt")
        return "never"


class Large(Job, queue=QUEUE, max_attempts=1):
    size: int

    async def handle(self, ctx: JobContext) -> str:
        return "x" * self.size


class Progresses(Job, queue=QUEUE, max_attempts=1):
    async def handle(self, ctx: JobContext) -> None:
        await ctx.progress(float("nan"), 100)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} <= {0}


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    config = WorkerConfig(queues=[QUEUE], max_concurrent_jobs=2)
    async with WorkerPool(config, manager) as running:
        yield running


@pytest.mark.parametrize("kind", [Raises, Hooked])
@pytest.mark.parametrize("what", Raises.KINDS)
async def test_what_no_handler_should_raise(
    manager: QueueManager, pool: WorkerPool, kind: type[Raises], what: str
) -> None:
    for _ in range(3):  # more than there are slots
        with pytest.raises(ExecutionFailed, match="by the job" if kind is Raises else "first"):
            await manager.dispatch(kind(what=what)).result(10)
    assert await manager.dispatch(Sound()).result(10) == "sound"


async def test_a_handler_that_cancels_its_own_task(manager: QueueManager, pool: WorkerPool) -> None:
    for _ in range(3):
        with pytest.raises(ExecutionFailed, match="CancelledError"):
            await manager.dispatch(CancelsItself()).result(10)
    assert await manager.dispatch(Sound()).result(10) == "sound"


async def test_a_reason_that_is_no_text(manager: QueueManager, pool: WorkerPool) -> None:
    await manager.dispatch(Strange())
    assert await manager.dispatch(Sound()).result(10) == "sound"


async def test_progress_that_is_no_number(manager: QueueManager, pool: WorkerPool) -> None:
    with pytest.raises(ExecutionFailed, match="current is nan"):
        await manager.dispatch(Progresses()).result(10)
    assert InvalidOption.__name__ in (await manager.failed_jobs(QUEUE))[0].errors[0].type


async def test_an_outcome_that_the_server_will_not_take(manager: QueueManager, redis_url: str) -> None:
    """The server hangs up on an argument over its limit: that job is buried with the reason, the others go on."""
    client = manager.store.client
    limit = str((await client.config_get("proto-max-bulk-len"))["proto-max-bulk-len"])
    await client.config_set("proto-max-bulk-len", 1_048_576)
    try:
        async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            large = await manager.dispatch(Large(size=3_000_000))
            others = await manager.dispatch_many([Sound() for _ in range(20)])
            assert [await manager.wait(each, 30) for each in others] == ["sound"] * 20
            with pytest.raises(ExecutionFailed, match="could not take how the attempt ended"):
                await manager.wait(large, 60)
    finally:
        await client.config_set("proto-max-bulk-len", limit)


TORN = """if True:
    import asyncio, sys
    from rf_jobs import Job, JobContext, QueueManager, WorkerConfig, WorkerPool

    class Long(Job, queue="torn"):
        async def handle(self, ctx: JobContext) -> None:
            await asyncio.sleep(60)

    async def main() -> None:
        manager = QueueManager(sys.argv[1])
        pool = WorkerPool(WorkerConfig(queues=["torn"]), manager)
        await pool.start()
        await manager.dispatch(Long())
        while not pool._engine.running():
            await asyncio.sleep(0.01)
        raise RuntimeError("no shutdown")

    try:
        asyncio.run(main())
    except RuntimeError as error:
        print(error)
"""


def test_a_loop_that_ends_under_a_running_job_ends(redis_url: str) -> None:
    assert in_fresh_interpreter(TORN, redis_url) == "no shutdown\n"
