"""What a type checker sees of the public API: mypy and pyright read this file, pytest runs nothing but an import."""

from __future__ import annotations

from typing import assert_type
from uuid import UUID

from rf_jobs import Job, JobContext, Queue, QueueManager


class Sum(Job):
    a: int
    b: int = 0

    async def handle(self, ctx: JobContext) -> int:
        return self.a + self.b


class Name(Job):
    def handle(self, ctx: JobContext) -> str:
        return ctx.job_class


async def checked(manager: QueueManager, queue: Queue) -> None:
    assert_type(await manager.dispatch(Sum(a=1)), UUID)
    assert_type(await manager.dispatch(Sum(a=1)).delay(3).on_queue("slow"), UUID)
    assert_type(await manager.dispatch(Sum(a=1)).result(3), int)
    assert_type(await manager.dispatch(Name()).result(3), str)
    Sum(a="one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Sum()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_the_file_is_read_by_the_checkers() -> None:
    assert checked.__annotations__
