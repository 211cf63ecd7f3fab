"""The enqueuing side of a peer: obeys the driver, one JSON command a line on standard input, one answer a line.

Runs under every peer's own interpreter, so it needs nothing but Python. All peers are timed by this same loop, so that
they differ in their enqueue call only; ``bullmq/client.mjs`` is its twin for Node.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

URL_VARIABLE = "BENCH_REDIS_URL"
STAMPS_VARIABLE = "BENCH_STAMPS"
WARM_UP = 50


def redis_url() -> str:
    """The private server of this measurement."""
    return os.environ[URL_VARIABLE]


class Stamps:
    """Where a ``stamp`` job notes when it was dispatched and when its handler started; one short write for each.

    ``time.monotonic_ns`` is CLOCK_MONOTONIC, one clock for all processes of the machine.
    """

    def __init__(self) -> None:
        path = os.environ.get(STAMPS_VARIABLE)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if path else -1

    def note(self, sent_ns: int) -> None:
        """First thing in the handler."""
        started_ns = time.monotonic_ns()
        if self._file >= 0:
            os.write(self._file, b"%d %d\n" % (sent_ns, started_ns))


class Enqueuer(ABC):
    """How a peer puts jobs on its queue."""

    async def connect(self) -> None:  # noqa: B027 - some connect at their first call
        """Make contact."""

    async def close(self) -> None:  # noqa: B027 - the process ends anyway
        """End contact."""

    @abstractmethod
    async def noop(self) -> None:
        """Enqueue a job without arguments that does nothing."""

    @abstractmethod
    async def stamp(self, sent_ns: int) -> None:
        """Enqueue a job that notes its start."""

    @abstractmethod
    async def payload(self, body: str) -> None:
        """Enqueue a no-op job with an argument."""

    async def bulk(self, count: int) -> None:
        """Enqueue no-op jobs with the peer's call for many."""
        raise NotImplementedError

    async def ping(self) -> None:
        """One round trip that does nothing, over the same connection as a dispatch."""
        raise NotImplementedError

    async def concurrently(self, count: int, in_flight: int, send: Callable[[], Awaitable[None]]) -> None:
        """``in_flight`` producers, each with one call under way."""
        left = iter(range(count))

        async def produce() -> None:
            for _ in left:
                await send()

        await asyncio.gather(*(produce() for _ in range(in_flight)))


class BlockingEnqueuer(Enqueuer):
    """A peer whose enqueue call blocks: ``threads`` producers instead of tasks; alone, it is called directly."""

    threads = 8

    async def concurrently(self, count: int, in_flight: int, send: Callable[[], Awaitable[None]]) -> None:
        del in_flight
        left = iter(range(count))  # shared by the threads: next() on it is atomic

        def produce() -> None:
            for _ in left:
                _run_through(send())

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(self.threads) as pool:
            await asyncio.gather(*(loop.run_in_executor(pool, produce) for _ in range(self.threads)))


def _run_through(call: Awaitable[None]) -> None:
    """Run a coroutine that never waits."""
    steps = call.__await__()
    try:
        next(steps)
    except StopIteration:
        return
    raise RuntimeError("a blocking enqueuer waited; make its methods call the peer directly")


class Agent:
    """Carries out the driver's commands."""

    def __init__(self, enqueuer: Enqueuer) -> None:
        self._enqueuer = enqueuer

    async def serve(self) -> None:
        """Until standard input ends."""
        loop = asyncio.get_running_loop()
        await self._enqueuer.connect()
        _answer({"ready": True})
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            command = json.loads(line)
            do = getattr(self, "do_" + command.pop("do"))
            started = time.perf_counter()
            found = await do(**command)
            _answer({"seconds": time.perf_counter() - started, **(found or {})})
        await self._enqueuer.close()

    async def do_warm_up(self) -> None:
        """Open connections, load scripts; the jobs it leaves are cleared by the driver."""
        for _ in range(WARM_UP):
            await self._enqueuer.noop()

    async def do_one_by_one(self, count: int) -> None:
        for _ in range(count):
            await self._enqueuer.noop()

    async def do_concurrent(self, count: int, in_flight: int) -> None:
        await self._enqueuer.concurrently(count, in_flight, self._enqueuer.noop)

    async def do_bulk(self, count: int, batch: int) -> None:
        for first in range(0, count, batch):
            await self._enqueuer.bulk(min(batch, count - first))

    async def do_payload(self, count: int, in_flight: int, body: str) -> None:
        await self._enqueuer.concurrently(count, in_flight, lambda: self._enqueuer.payload(body))

    async def do_lone(self, count: int, pause_ms: int, seed: int) -> None:
        """Jobs with pauses of half to one and a half ``pause_ms``, so that no poller's rhythm is met."""
        pauses = random.Random(seed)
        for _ in range(count):
            await self._enqueuer.stamp(time.monotonic_ns())
            await asyncio.sleep(pause_ms * pauses.uniform(0.5, 1.5) / 1000)

    async def do_pings(self, count: int, pause_ms: int, seed: int) -> dict[str, float]:
        """The yardstick of ``lone``: bare round trips with the same pauses; answers with their median."""
        pauses = random.Random(seed)
        took = []
        for _ in range(count):
            began = time.perf_counter()
            await self._enqueuer.ping()
            took.append(time.perf_counter() - began)
            await asyncio.sleep(pause_ms * pauses.uniform(0.5, 1.5) / 1000)
        return {"median": sorted(took)[len(took) // 2]}


def _answer(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(enqueuer: Enqueuer, run: Callable[[Any], object]) -> None:
    """Serve the driver; ``run`` is ``uvloop.run`` where the peer may have it."""
    run(Agent(enqueuer).serve())
