"""A worker process that has run enough is replaced: its jobs end in peace, and others run meanwhile in its successor."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rf_jobs import QueueManager
from rf_jobs.client.handle import JobHandle
from rf_jobs.core.doctor import deep_check
from rf_jobs.core.records import WorkerInfo
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.long_jobs import Blocked, Waits
from tests.support.processes import process, rf_jobs
from tests.support.waiting import until

OFF = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}
MAX_JOBS = 3


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert (await deep_check(running.store)).problems == []


@asynccontextmanager
async def worker(
    manager: QueueManager, log: Path, *options: str, patience: str = "0.5"
) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """``rf-jobs worker`` that replaces its only process after three jobs."""
    command = rf_jobs(
        "worker", "tests.support.jobs", "tests.support.long_jobs", "--queues", QUEUE,
        "--redis-url", manager.settings.jobs.redis_url, "--lease-seconds", "3", "--grace-seconds", "0.5",
        "--max-jobs", str(MAX_JOBS), "--shutdown-timeout-seconds", patience, *options,
    )  # fmt: skip
    with process(*command, log=log, env=OFF) as running:
        await one_in(manager, "running")
        yield running
        running.terminate()
        assert await asyncio.to_thread(running.wait, 20) == 0


async def one_in(manager: QueueManager, state: str, *, but: int = 0) -> WorkerInfo:
    """The worker in this state, of another process than ``but``, once there is one."""

    async def look() -> list[WorkerInfo]:
        return [w for w in await manager.workers() if w.state == state and w.pid != but]

    return (await until(look, f"a worker is {state}"))[0]


async def started(folder: Path) -> int:
    """The pid in which the job that notes its starts there runs."""

    async def look() -> str:
        file = folder / "starts"
        return file.read_text() if file.exists() else ""

    return int((await until(look, "the job has started")).split()[0])


async def wear_out(manager: QueueManager) -> None:
    for number in range(MAX_JOBS):
        assert await manager.dispatch(jobs.Add(a=number, b=1)).result(20) == number + 1


async def lease_is_extended(manager: QueueManager, handle: JobHandle[int]) -> None:
    """Until the job's lease reaches further than one that nobody has extended since now."""
    key = manager.store.keys.of("running", QUEUE)
    now = await manager.store.run(manager.store.commands.time())

    async def extended() -> bool:
        return float(await manager.store.client.zscore(key, str(handle.id)) or 0) > now + 3_000 + 500

    await until(extended, "the lease was extended")


async def test_what_runs_outlasts_the_recycling(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path / "log"):
        handle = await manager.dispatch(Waits(folder=str(tmp_path))).handle()
        old = await started(tmp_path)
        await wear_out(manager)
        await one_in(manager, "stopping")
        new = await one_in(manager, "running", but=old)
        await lease_is_extended(manager, handle)  # longer than shutdown_timeout
        await wear_out(manager)
        await wear_out(manager)
        assert {w.pid for w in await manager.workers()} == {old, new.pid}, "one after the other, or they would pile up"
        (tmp_path / "go").touch()
        assert await handle.result(20) == old
        assert (tmp_path / "starts").read_text().split() == [str(old)], "it was started again"
        await one_in(manager, "running", but=new.pid)
        assert old not in {w.pid for w in await manager.workers()}
        [queue] = await manager.queues()
        assert queue.ledger.get("reclaimed", 0) == 0
    assert "died" not in (tmp_path / "log").read_text()


async def test_a_stop_meanwhile_is_the_first_signal(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path / "log", patience="60") as program:
        handle = await manager.dispatch(Waits(folder=str(tmp_path))).handle()
        old = await started(tmp_path)
        await wear_out(manager)
        new = await one_in(manager, "running", but=old)
        program.terminate()

        async def gone() -> bool:
            return {w.pid for w in await manager.workers()} == {old}

        await until(gone, "the successor has stopped")
        await lease_is_extended(manager, handle)
        (tmp_path / "go").touch()
        assert await handle.result(20) == old
        assert await asyncio.to_thread(program.wait, 20) == 0
        assert (tmp_path / "starts").read_text().split() == [str(old)]
        assert new.pid != old


async def test_two_stops_meanwhile_hand_back_at_once(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path / "log", patience="60") as program:
        handle = await manager.dispatch(Waits(folder=str(tmp_path))).handle()
        old = await started(tmp_path)
        await wear_out(manager)
        await one_in(manager, "running", but=old)
        program.terminate()

        async def gone() -> bool:
            return {w.pid for w in await manager.workers()} == {old}

        await until(gone, "the successor has stopped")
        program.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(program.wait, 20) == 0
        record = await handle.record()
        assert (record.state, record.attempt, record.crashes) == ("ready", 0, 0)
        await manager.clear(QUEUE)


@pytest.mark.chaos
async def test_a_retiring_process_is_still_killed_for_a_job_that_overruns(
    manager: QueueManager, tmp_path: Path
) -> None:
    async with worker(manager, tmp_path / "log"):
        handle = await manager.dispatch(Blocked(folder=str(tmp_path))).handle()
        old = await started(tmp_path)
        await wear_out(manager)
        new = await one_in(manager, "running", but=old)
        (tmp_path / "block").touch()
        assert await handle.result(60) == new.pid
        assert (await handle.record()).crashes == 1


async def test_a_fixed_port_goes_from_one_to_the_next(manager: QueueManager, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    async with worker(manager, tmp_path / "log", "--http-port", str(port)):
        old = (await one_in(manager, "running")).pid
        began = time.monotonic()
        await wear_out(manager)
        new = await one_in(manager, "running", but=old)
        await wear_out(manager)
        await one_in(manager, "running", but=new.pid)
        assert time.monotonic() - began < 20
    assert "cannot serve" not in (tmp_path / "log").read_text()
