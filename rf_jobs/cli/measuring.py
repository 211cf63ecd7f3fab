"""What ``rf-jobs bench`` measures: dispatching, draining, and the latency of a lone job, in this one process."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from rf_jobs.client.manager import QueueManager
from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import BackendError
from rf_jobs.words.timing import mono
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.pool import WorkerPool

QUEUE = "bench"
CONCURRENCY = 100
BULK = 500
PATIENCE = 60.0
"""Seconds without a single job done after which it is given up."""

Told = Callable[[int], None]


class _Gate:
    """Counts the jobs that ran, and says when."""

    def __init__(self) -> None:
        self.done = 0
        self.last = 0.0
        self.expected = 0
        self.reached = asyncio.Event()

    def expect(self, more: int) -> None:
        """Wait for so many more."""
        self.expected = self.done + more
        self.reached.clear()

    def passed(self) -> None:
        """One ran."""
        self.done += 1
        self.last = mono()
        if self.done >= self.expected:
            self.reached.set()


_gate: _Gate | None = None


class BenchNoop(Job, name="rf-jobs-bench-noop", queue=QUEUE):
    """Does nothing but count."""

    async def handle(self, ctx: JobContext) -> None:
        if _gate is not None:
            _gate.passed()


@dataclass(frozen=True)
class Measured:
    """Rates in jobs a second, times in milliseconds."""

    jobs: int
    dispatch_single_per_second: float
    dispatch_concurrent_per_second: float
    dispatch_bulk_per_second: float
    drain_per_second: float
    latency_p50_ms: float
    latency_p99_ms: float
    samples: int


async def measure(settings: Settings, jobs: int, samples: int, told: Told) -> Measured:
    """Dispatch one by one, concurrently and in bulk; drain it all; then time lone jobs on the idle worker."""
    global _gate  # noqa: PLW0603 (the handler has no other way to it)
    _gate = gate = _Gate()
    few = max(1, jobs // 10)
    async with QueueManager(settings) as manager:
        await manager.clear(QUEUE)
        single = await _timed(_single(manager, few))
        concurrent = await _timed(_concurrent(manager, jobs))
        bulk = await _timed(_bulk(manager, jobs))
        total = few + 2 * jobs
        gate.expect(total)
        config = WorkerConfig(settings.worker)
        began = mono()
        async with WorkerPool(config, manager):
            await _all_done(gate, told)
            drain = gate.last - began
            latencies = [await _lone(manager, gate) for _ in range(samples)]
    cuts = statistics.quantiles(latencies, n=100) if samples > 1 else [latencies[0]] * 99
    return Measured(
        jobs=total,
        dispatch_single_per_second=few / single,
        dispatch_concurrent_per_second=jobs / concurrent,
        dispatch_bulk_per_second=jobs / bulk,
        drain_per_second=total / drain,
        latency_p50_ms=statistics.median(latencies) * 1000,
        latency_p99_ms=cuts[98] * 1000,
        samples=samples,
    )


async def _timed(work: asyncio.Future[None] | object) -> float:
    began = mono()
    await work  # type: ignore[misc]
    return mono() - began


async def _single(manager: QueueManager, count: int) -> None:
    for _ in range(count):
        await manager.dispatch(BenchNoop())


async def _concurrent(manager: QueueManager, count: int) -> None:
    left = count

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await manager.dispatch(BenchNoop())

    await asyncio.gather(*(client() for _ in range(CONCURRENCY)))


async def _bulk(manager: QueueManager, count: int) -> None:
    for start in range(0, count, BULK):
        await manager.dispatch_many([BenchNoop() for _ in range(min(BULK, count - start))])


async def _all_done(gate: _Gate, told: Told) -> None:
    last_done, last_change = gate.done, mono()
    while not gate.reached.is_set():
        try:
            async with asyncio.timeout(0.2):
                await gate.reached.wait()
        except TimeoutError:
            told(gate.done)
            if gate.done != last_done:
                last_done, last_change = gate.done, mono()
            elif mono() - last_change > PATIENCE:
                raise BackendError(
                    f"no job was done for {PATIENCE:g} s ({gate.done} of {gate.expected}); does another worker serve {QUEUE!r}?"
                ) from None


async def _lone(manager: QueueManager, gate: _Gate) -> float:
    """Seconds from before the dispatch of a job to its run on the idle worker."""
    gate.expect(1)
    await asyncio.sleep(0.002)  # the worker goes idle: it is this, not a busy one, that is measured
    began = mono()
    await manager.dispatch(BenchNoop())
    async with asyncio.timeout(PATIENCE):
        await gate.reached.wait()
    return gate.last - began
