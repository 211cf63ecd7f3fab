"""What a worker does beside its jobs, when clocks differ and heartbeats fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rf_jobs import QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model.events import JobReleased, WorkerBeat
from rf_jobs.words.timing import now_ms
from rf_jobs.worker import upkeep
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.processes import process, rf_jobs
from tests.support.proxy import ReplyCutter
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], lease=3, sleep=60, shutdown_timeout=0)


@pytest.fixture
def cutter(redis_url: str) -> Iterator[ReplyCutter]:
    with ReplyCutter(redis_url.removeprefix("unix://").partition("?")[0]) as proxy:
        yield proxy


async def test_a_host_whose_clock_is_ahead_forgets_no_live_worker(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with QueueManager(redis_url) as manager, WorkerPool(CONFIG, manager) as pool:

        async def known() -> bool:
            return [w.id for w in await manager.workers()] == [pool.id]

        await until(known, "the worker has sent a heartbeat")
        monkeypatch.setattr(upkeep, "now_ms", lambda: now_ms() + 86_400_000)
        await pool._caretaker.round()
        assert await known()


async def test_failed_heartbeats_are_counted_as_extensions_that_failed(cutter: ReplyCutter, redis_url: str) -> None:
    failures: list[int] = []
    async with QueueManager(cutter.url) as manager, QueueManager(redis_url) as other:
        manager.bus.subscribe(WorkerBeat, lambda event: failures.append(event.extension_failures))
        async with WorkerPool(CONFIG, manager) as pool:
            await manager.dispatch_many([jobs.Sleeps(seconds=60), jobs.Sleeps(seconds=60)])
            await both_run(other)
            before = cutter.cuts
            cutter.cut(manager.store.server.script("beat").digest.encode())

            async def counted() -> bool:
                return sum(failures) > 0

            await until(counted, "a failed heartbeat was counted")
            assert cutter.cuts == before + 1
            assert sum(failures) == 2, "one heartbeat failed, which would have extended two leases"
            await pool.shutdown(timedelta(0))
        await other.clear(QUEUE)


async def both_run(manager: QueueManager) -> None:
    """And the worker's lease table holds them: it has told so with a heartbeat."""

    async def look() -> bool:
        return [w.busy for w in await manager.workers()] == [2]

    await until(look, "both jobs run")


async def test_failed_heartbeats_of_a_supervisor_are_counted(
    cutter: ReplyCutter, redis_url: str, tmp_path: Path
) -> None:
    on = {"RF_JOBS_TELEMETRY_TRACING": "false", "RF_JOBS_TELEMETRY_FLUSH_SECONDS": "0.5"}
    command = rf_jobs(
        "worker", "tests.support.jobs", "--queues", QUEUE, "--redis-url", cutter.url, "--lease-seconds", "3",
        "--shutdown-timeout-seconds", "0",
    )  # fmt: skip
    async with QueueManager(redis_url) as manager:
        with process(*command, log=tmp_path / "log", env=on) as running:
            await manager.dispatch_many([jobs.Sleeps(seconds=60), jobs.Sleeps(seconds=60)])
            await both_run(manager)
            cutter.cut(manager.store.server.script("beat").digest.encode())
            field = json.dumps(["worker_lease_extension_failures_total"], separators=(",", ":"))

            async def counted() -> bool:
                return (await manager.store.run(manager.store.commands.metrics())).get(field) == "2"

            await until(counted, "the metric says so")
            running.terminate()
            assert await asyncio.to_thread(running.wait, 20) == 0
        await manager.clear(QUEUE)


async def test_a_shutdown_takes_a_timedelta(redis_url: str) -> None:
    released: list[JobReleased] = []
    async with QueueManager(redis_url) as manager:
        manager.bus.subscribe(JobReleased, released.append)
        async with WorkerPool(CONFIG, manager) as pool:
            await manager.dispatch_many([jobs.Sleeps(seconds=60), jobs.Sleeps(seconds=60)])
            await both_run(manager)
            await pool.shutdown(timedelta(seconds=0.1))
        assert len(released) == 2
        await manager.clear(QUEUE)
