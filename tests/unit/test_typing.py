"""What a type checker sees of the public API: mypy and pyright read this file, pytest sees that it is so."""

from __future__ import annotations

from typing import assert_type
from uuid import UUID

import pytest

from rf_jobs import Job, JobContext, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.words.errors import SerializationError


class Sum(Job):
    a: int
    b: int = 0

    async def handle(self, ctx: JobContext) -> int:
        return self.a + self.b


class Name(Job):
    def handle(self, ctx: JobContext) -> str:
        return ctx.job_class


async def test_what_the_checkers_are_told_is_what_comes(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager, WorkerPool(WorkerConfig(queues=["default"]), manager):
        assert isinstance(assert_type(await manager.dispatch(Sum(a=1)), UUID), UUID)
        assert isinstance(assert_type(await manager.dispatch(Sum(a=1)).delay(3).on_queue("slow"), UUID), UUID)
        assert assert_type(await manager.dispatch(Sum(a=1)).result(10), int) == 1
        assert assert_type(await manager.dispatch(Name()).result(10), str) == Name.__job_class__.name


async def test_what_the_checkers_refuse_is_an_error() -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'a'"):
        Sum()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(SerializationError, match="expected `int`, got `str`"):
        await QueueManager().dispatch(Sum(a="one"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
