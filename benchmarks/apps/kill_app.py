"""Jobs that leave a trace on another server at their start and at their end, so that nothing can be done unseen."""

from __future__ import annotations

import asyncio
import os
import time
from functools import cache

import uvloop
from redis.asyncio import Redis

from benchmarks.apps.agent import Enqueuer, redis_url, serve
from rf_jobs import Job, JobContext, QueueManager

EFFECTS_VARIABLE = "BENCH_EFFECTS_URL"
SLEEP_VARIABLE = "BENCH_SLEEP_SECONDS"
EFFECTS = "effects"


@cache
def effects() -> Redis:
    """The other server; made at first use, which is inside the worker's loop."""
    return Redis.from_url(os.environ[EFFECTS_VARIABLE])


class Effect(Job, name="effect", queue="bench", max_attempts=100, backoff=0):
    number: int

    async def handle(self, ctx: JobContext) -> None:
        await self._note("start")
        await asyncio.sleep(float(os.environ[SLEEP_VARIABLE]))
        await self._note("end")

    async def _note(self, what: str) -> None:
        line = f"{what} {self.number} {os.getpid()} {time.monotonic_ns()}"
        pushed = effects().rpush(EFFECTS, line)
        assert not isinstance(pushed, int)  # the stub's type is that of both clients
        await pushed


class Effects(Enqueuer):
    """Numbers the jobs of its one ``bulk``."""

    async def connect(self) -> None:
        self._manager = await QueueManager.connect(redis_url())
        self._next = 0

    async def close(self) -> None:
        await self._manager.aclose()

    async def noop(self) -> None:
        raise NotImplementedError

    async def stamp(self, sent_ns: int) -> None:
        raise NotImplementedError

    async def payload(self, body: str) -> None:
        raise NotImplementedError

    async def bulk(self, count: int) -> None:
        await self._manager.dispatch_many([Effect(number=self._next + i) for i in range(count)])
        self._next += count


if __name__ == "__main__":
    serve(Effects(), uvloop.run)
