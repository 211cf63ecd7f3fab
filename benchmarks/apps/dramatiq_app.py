"""dramatiq: one process, 8 threads (its default, and no slower than more: they share one interpreter lock), hiredis, a
prefetch of 256 instead of 16 (``dramatiq_queue_prefetch``), its default middleware. There is no event loop to speed up.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator"

from __future__ import annotations

import asyncio

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.apps.agent import BlockingEnqueuer, Stamps, redis_url, serve

broker = RedisBroker(url=redis_url())
dramatiq.set_broker(broker)
stamps = Stamps()


@dramatiq.actor
def noop() -> None:
    """Nothing."""


@dramatiq.actor
def stamp(sent_ns: int) -> None:
    stamps.note(sent_ns)


@dramatiq.actor
def payload(body: str) -> None:
    """Nothing."""


class Dramatiq(BlockingEnqueuer):
    async def noop(self) -> None:
        noop.send()

    async def stamp(self, sent_ns: int) -> None:
        stamp.send(sent_ns)

    async def payload(self, body: str) -> None:
        payload.send(body)


if __name__ == "__main__":
    serve(Dramatiq(), asyncio.run)
