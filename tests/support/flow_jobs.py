"""Jobs for the tests of workflows, uniqueness and limits; importable by other processes."""

from __future__ import annotations

import asyncio
from typing import Any

from rf_jobs import Breaker, Job, JobContext, JobError, Rate
from rf_jobs.model.events import BatchFinished

QUEUE = "flow"
seen: list[Any] = []
"""What ran, in order, in this process; tests clear it."""


class Switch:
    """An event that belongs to no event loop: each test has a loop of its own."""

    def __init__(self) -> None:
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True

    def clear(self) -> None:
        self._is_set = False

    async def wait(self) -> None:
        while not self._is_set:  # noqa: ASYNC110 (see above)
            await asyncio.sleep(0.005)


gate = Switch()
"""What waits runs until it opens."""
mended = Switch()
"""What breaks does not when it is set."""


class Note(Job, queue=QUEUE):
    what: str

    async def handle(self, ctx: JobContext) -> str:
        seen.append(self.what)
        return self.what


class Silent(Job, queue=QUEUE):
    async def handle(self, ctx: JobContext) -> None:
        seen.append("silent")


class Breaks(Job, queue=QUEUE, max_attempts=1):
    what: str = "breaks"

    async def handle(self, ctx: JobContext) -> None:
        seen.append(self.what)
        if mended.is_set():
            return
        raise ValueError(self.what)


class Waits(Job, queue=QUEUE):
    """Runs until the gate opens."""

    what: str = "waits"

    async def handle(self, ctx: JobContext) -> None:
        seen.append(self.what)
        await gate.wait()


class Tells(Job, queue=QUEUE):
    """What it was given by those before it."""

    async def handle(self, ctx: JobContext) -> Any:
        seen.append(("previous", ctx.previous))
        return ctx.previous


class TellsFromProcess(Job, queue=QUEUE, executor="process", timeout=30):
    """The same, in a process of its own."""

    def handle(self, ctx: JobContext) -> Any:
        return [ctx.previous, sorted(ctx.inputs.values())]


class AppendsTwo(Job, queue=QUEUE):
    """Puts two steps behind the last one at the same time."""

    async def handle(self, ctx: JobContext) -> None:
        await asyncio.gather(ctx.chain.append(Waits(what="first")), ctx.chain.append(Note(what="second")))


class Adds(Job, queue=QUEUE):
    """Puts more jobs into its batch."""

    more: int

    async def handle(self, ctx: JobContext) -> None:
        await ctx.batch.add(*(Note(what=f"more {n}") for n in range(self.more)))


class Extends(Job, queue=QUEUE):
    """Puts more steps into its chain."""

    async def handle(self, ctx: JobContext) -> str:
        await ctx.chain.insert(Note(what="inserted"))
        await ctx.chain.append(Note(what="appended"))
        seen.append("extends")
        return "extends"


class Limited(Job, queue=QUEUE, concurrency=2, concurrency_key="tenant", backoff=0):
    tenant: str
    what: str = ""

    async def handle(self, ctx: JobContext) -> None:
        seen.append((self.tenant, self.what))
        await gate.wait()


class Rated(Job, queue=QUEUE, rate=Rate(2, per=0.5)):
    number: int

    async def handle(self, ctx: JobContext) -> None:
        seen.append((self.number, ctx.started_ms))


class Shared(Job, queue=QUEUE, limits=("model-api",)):
    number: int

    async def handle(self, ctx: JobContext) -> None:
        seen.append(self.number)
        await gate.wait()


class Fused(Job, queue=QUEUE, breaker=Breaker(failures=2, per=30, cooldown=0.5), max_attempts=1):
    number: int

    async def handle(self, ctx: JobContext) -> None:
        seen.append(self.number)
        if not mended.is_set():
            raise ConnectionError("down")


class Fair(Job, queue=QUEUE, fair_key="tenant", fair_weight="weight"):
    tenant: str
    number: int
    weight: int = 1

    async def handle(self, ctx: JobContext) -> None:
        seen.append((self.tenant, self.number))


class Throttled(Job, queue=QUEUE):
    """Was told to wait by whomever it called, and tells its whole class."""

    number: int

    async def handle(self, ctx: JobContext) -> None:
        seen.append(self.number)
        if self.number == 0:
            await ctx.slow_down(30)


class UniqueReport(Job, queue=QUEUE, unique_for=3600, unique_by=("account",), unique_until="done"):
    account: int
    note: str = ""

    async def handle(self, ctx: JobContext) -> None:
        seen.append((self.account, self.note))


async def on_done(batch: Any) -> None:
    """A callback."""
    seen.append(("on_done", (await batch.progress()).processed))


async def on_failed(batch: Any, error: JobError) -> None:
    """A callback of catch."""
    seen.append(("on_failed", str(error)))


def finished(events: list[Any]) -> list[BatchFinished]:
    """The batches that ended, of all events."""
    return [event for event in events if isinstance(event, BatchFinished)]
