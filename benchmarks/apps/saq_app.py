"""SAQ, tuned: uvloop, hiredis, 100 jobs at once, no results kept (``ttl=-1``), and no cap of its own on concurrent
enqueues below ours (``max_concurrent_ops``, default 20).
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc"

from __future__ import annotations

import logging
import sys
from typing import Any

import uvloop
from saq import Queue, Worker

from benchmarks.apps.agent import Enqueuer, Stamps, redis_url, serve

stamps = Stamps()
FORGET = -1


async def noop(ctx: dict[str, Any]) -> None:
    """Nothing."""


async def stamp(ctx: dict[str, Any], *, sent_ns: int) -> None:  # noqa: ARG001 - the peer passes it
    stamps.note(sent_ns)


async def payload(ctx: dict[str, Any], *, body: str) -> None:
    """Nothing."""


async def work() -> None:
    logging.getLogger("saq").setLevel(logging.WARNING)
    queue = Queue.from_url(redis_url(), name="bench")
    await Worker(queue, [noop, stamp, payload], concurrency=100).start()


class Saq(Enqueuer):
    async def connect(self) -> None:
        self._queue = Queue.from_url(redis_url(), name="bench", max_concurrent_ops=100)
        await self._queue.connect()

    async def close(self) -> None:
        await self._queue.disconnect()

    async def noop(self) -> None:
        await self._queue.enqueue("noop", ttl=FORGET)

    async def stamp(self, sent_ns: int) -> None:
        await self._queue.enqueue("stamp", ttl=FORGET, sent_ns=sent_ns)

    async def payload(self, body: str) -> None:
        await self._queue.enqueue("payload", ttl=FORGET, body=body)


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        uvloop.run(work())
    else:
        serve(Saq(), uvloop.run)
