"""Jobs of every fate, for the live tests."""

from __future__ import annotations

import asyncio

from rf_jobs import Job, JobContext


class Fine(Job, queue="fine"):
    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(0.005)


class Late(Job, queue="late"):
    """Its queue is paused."""

    def handle(self, ctx: JobContext) -> None:
        raise AssertionError("nobody starts it")


class Flaky(Job, queue="flaky", max_attempts=5, backoff=0.1):
    async def handle(self, ctx: JobContext) -> None:
        if ctx.attempt < 2:
            raise ValueError("not yet")


class Large(Job, queue="fine", max_attempts=1):
    """Its payload lies elsewhere, where its worker does not look."""

    text: str

    def handle(self, ctx: JobContext) -> None:
        raise AssertionError("nobody can open it")


class Hopeless(Job, queue="flaky", max_attempts=1):
    def handle(self, ctx: JobContext) -> None:
        raise RuntimeError("never")
