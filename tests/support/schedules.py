"""Jobs for schedules, and ways to have them late, for the tests of schedules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from rf_jobs import (
    Job,
    JobContext,
    QueueManager,
    events,
)
from tests.support.jobs import QUEUE
from tests.support.waiting import until

MINUTE = 60_000


class Ticked(Job, queue=QUEUE, name="tests.tick"):
    n: int = 0

    async def handle(self, ctx: JobContext) -> int:
        return self.n


class Picky(Job, queue=QUEUE, name="tests.picky"):
    def queue(self) -> str:
        raise RuntimeError("no queue today")

    async def handle(self, ctx: JobContext) -> None:
        return


def heard(manager: QueueManager, kind: type[events.Event]) -> list[Any]:
    found: list[Any] = []
    manager.bus.subscribe(kind, found.append)
    return found


async def now_of(manager: QueueManager) -> int:
    return await manager.store.run(manager.store.commands.time())


async def rewind(manager: QueueManager, name: str, ticks: int, interval: int = MINUTE) -> int:
    """As if no scheduler had been there for so many ticks; answers with the first of them."""
    key, names = manager.store.keys.of("schedule", name), manager.store.keys.of("schedules")
    first = (await now_of(manager)) // interval * interval - (ticks - 1) * interval
    await manager.store.client.hset(key, mapping={"next": first, "due": first})
    await manager.store.client.zadd(names, {name: first})
    return first


def dispatched(manager: QueueManager) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        counts = await manager.counts(QUEUE)
        return sum(counts.values())

    return look


async def settled(manager: QueueManager, name: str) -> None:
    """Until the schedule waits for a tick to come."""

    async def look() -> bool:
        info = await manager.schedules.get(name)
        return info.next_run is not None and info.next_run > datetime.now(UTC)

    await until(look, f"{name} waits for what is to come")
