"""Middlewares: in which order they wrap, what they can stop, and what they see of a whole ``dispatch_many``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from rf_jobs import Envelope, Handle, Headers, JobContext, Middleware, QueueManager, WorkerConfig, WorkerPool
from tests.support.jobs import QUEUE, Add

seen: list[str] = []


class Wraps(Middleware):
    def __init__(self, name: str) -> None:
        self.name = name

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        headers.bg = {**headers.bg, self.name: envelope.job.rpartition(":")[2]}

    async def around_batch(self, count: int, send: Handle) -> Any:
        seen.append(f"{self.name} sends {count}")
        try:
            return await send()
        finally:
            seen.append(f"{self.name} has sent")

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        seen.append(f"{self.name} runs {job.a} with {sorted(ctx.headers.items())}")
        return await handle() + 1


class Refuses(Middleware):
    """Says no to a job, while it is prepared."""

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        if b'"a":13' in bytes(envelope.args):
            raise PermissionError("not this one")


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    async with QueueManager(redis_url, middleware=[Wraps("outer"), Wraps("inner")]) as running:
        yield running


async def test_the_first_is_outermost(manager: QueueManager) -> None:
    ids = await manager.dispatch_many([Add(a=1, b=1), Add(a=2, b=2)])
    assert seen == ["outer sends 2", "inner sends 2", "inner has sent", "outer has sent"]
    seen.clear()
    async with WorkerPool(WorkerConfig(queues=[QUEUE], max_concurrent_jobs=1), manager):
        assert [await manager.wait(each, 30) for each in ids] == [2 + 2, 4 + 2]
    headers = [("inner", "Add"), ("outer", "Add")]
    assert seen == [f"{who} runs {job} with {headers}" for job in (1, 2) for who in ("outer", "inner")]


async def test_one_job_alone_is_no_batch(manager: QueueManager) -> None:
    await manager.dispatch(Add(a=1, b=1))
    assert seen == []


async def test_what_one_refuses_stops_all_of_them(manager: QueueManager) -> None:
    manager.middleware.add(Refuses())
    with pytest.raises(PermissionError, match="not this one"):
        await manager.dispatch_many([Add(a=1, b=1), Add(a=13, b=1), Add(a=2, b=1)])
    with pytest.raises(PermissionError):
        await manager.dispatch(Add(a=13, b=1))
    assert await manager.size(QUEUE) == 0
    await manager.dispatch(Add(a=1, b=1))
    assert await manager.size(QUEUE) == 1
