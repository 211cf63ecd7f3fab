"""arq, tuned: uvloop, hiredis, no results kept, 100 jobs at once, a poll every 10 ms (its default of 500 ms would leave
a lone job waiting for a quarter of a second), success lines not logged.

More jobs at once make it slower: it tries to take each id of its reading again at every poll.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc"

from __future__ import annotations

import sys
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker

from benchmarks.apps.agent import Enqueuer, Stamps, redis_url, serve

stamps = Stamps()


async def noop(ctx: dict[str, Any]) -> None:
    """Nothing."""


async def stamp(ctx: dict[str, Any], sent_ns: int) -> None:  # noqa: ARG001 - the peer passes it
    stamps.note(sent_ns)


async def payload(ctx: dict[str, Any], body: str) -> None:
    """Nothing."""


async def work() -> None:
    worker = Worker(
        functions=[noop, stamp, payload],
        redis_settings=RedisSettings.from_dsn(redis_url()),
        max_jobs=100,
        poll_delay=0.01,
        keep_result=0,
        log_results=False,
    )
    await worker.async_run()


class Arq(Enqueuer):
    async def connect(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(redis_url()))

    async def close(self) -> None:
        await self._pool.aclose()

    async def noop(self) -> None:
        await self._pool.enqueue_job("noop")

    async def stamp(self, sent_ns: int) -> None:
        await self._pool.enqueue_job("stamp", sent_ns)

    async def payload(self, body: str) -> None:
        await self._pool.enqueue_job("payload", body)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(work())
    else:
        serve(Arq(), uvloop.run)
