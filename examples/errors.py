"""Each kind of failure is a class of its own; the whole tree stands in ``rf_jobs.words.errors``."""

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

from examples.here import run
from rf_jobs import (
    DuplicateJob,
    ExecutionFailed,
    Job,
    JobContext,
    JobNotFound,
    JobTimeout,
    PayloadTooLarge,
    QueueManager,
    RfJobsError,
    SerializationError,
    WorkerPool,
)


class Work(Job, max_attempts=1, timeout=0.3):
    text: str = ""
    seconds: float = 0.0

    async def handle(self, ctx: JobContext) -> float:
        await asyncio.sleep(self.seconds)
        return 1 / (self.seconds - 0.1)


async def fails(call: Awaitable[object], kind: type[RfJobsError]) -> None:
    try:
        await call
    except kind as error:
        print(f"{kind.__name__}: {str(error)[:100]}")
    else:
        raise RuntimeError(f"it did not fail with {kind.__name__}")


async def main(manager: QueueManager) -> None:
    mine = await manager.dispatch(Work(text="first"))
    wrong: Any = 7
    await fails(manager.dispatch(Work(text=wrong)), SerializationError)
    await fails(manager.dispatch(Work(text="long" * 1_000_000)), PayloadTooLarge)
    await fails(manager.dispatch(Work(text="another")).with_id(mine), DuplicateJob)
    await fails(manager.wait(uuid4(), timeout=10), JobNotFound)
    async with WorkerPool(manager=manager):
        await fails(manager.dispatch(Work(seconds=0.1)).result(timeout=10), ExecutionFailed)
        await fails(manager.dispatch(Work(seconds=60)).result(timeout=10), JobTimeout)


if __name__ == "__main__":
    run(main)
