"""The supervisor and its children, as real processes: who dies, who goes on, and what becomes of the jobs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
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
from rf_jobs.words.errors import JobError
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.processes import process, rf_jobs
from tests.support.waiting import until

OFF = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        report = await deep_check(running.store)
        assert report.problems == []


@asynccontextmanager
async def worker(
    manager: QueueManager, folder: Path, *options: str, env: dict[str, str] = OFF
) -> AsyncGenerator[subprocess.Popen[bytes]]:
    """``rf-jobs worker``, ready."""
    command = rf_jobs(
        "worker", "tests.support.jobs", "--queues", QUEUE, "--redis-url", manager.settings.jobs.redis_url, "--lease-seconds", "3",
        "--grace-seconds", "0.5", *options,
    )  # fmt: skip
    with process(*command, log=folder / f"worker-{time.monotonic_ns()}.log", env=env) as running:
        await ready(manager)
        yield running
        running.terminate()
        await asyncio.to_thread(running.wait, 20)


async def ready(manager: QueueManager, count: int = 1, state: str = "running") -> list[WorkerInfo]:
    """The workers in this state, once there are so many."""

    async def look() -> list[WorkerInfo]:
        found = [w for w in await manager.workers() if w.state == state]
        return found if len(found) >= count else []

    return await until(look, f"{count} workers are {state}")


async def running(manager: QueueManager, count: int) -> None:
    async def look() -> bool:
        return (await manager.counts(QUEUE))["running"] >= count

    await until(look, f"{count} jobs run")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Where jobs note that they have started."""
    folder = tmp_path / "started"
    folder.mkdir()
    return folder


async def hanging(manager: QueueManager, folder: Path, count: int) -> list[JobHandle[int]]:
    """So many jobs, once each of them is in its handler, where it stays until its process is killed."""
    handles = [await manager.dispatch(jobs.FirstHangs(folder=str(folder))).handle() for _ in range(count)]

    async def started() -> bool:
        return len(jobs.FirstHangs.started(folder)) == count

    await until(started, f"{count} jobs are in their handlers")
    return handles


@pytest.mark.chaos
async def test_a_killed_child_costs_no_lease_time(manager: QueueManager, tmp_path: Path, notes: Path) -> None:
    async with worker(manager, tmp_path, "--lease-seconds", "60"):
        handles = await hanging(manager, notes, 5)
        [victim] = await ready(manager)
        os.kill(victim.pid, signal.SIGKILL)
        assert [await handle.result(20) for handle in handles] == [1] * 5, "an attempt was used up"
        records = [await handle.record() for handle in handles]
        assert {record.crashes for record in records} == {1}


@pytest.mark.chaos
async def test_jobs_of_a_killed_child_are_announced_by_the_next(
    manager: QueueManager, tmp_path: Path, notes: Path
) -> None:
    """The supervisor settles them and has no telemetry of its own."""
    on = {"RF_JOBS_TELEMETRY_TRACING": "false", "RF_JOBS_TELEMETRY_FLUSH_SECONDS": "0.5"}
    async with worker(manager, tmp_path, env=on):
        handles = await hanging(manager, notes, 3)
        [victim] = await ready(manager)
        os.kill(victim.pid, signal.SIGKILL)
        assert [await handle.result(20) for handle in handles] == [1] * 3
        reclaimed = (await manager.queue(QUEUE)).ledger["reclaimed"]
        name = (await handles[0].record()).job_class
        field = json.dumps(["jobs_failed_total", QUEUE, name, "lost"], separators=(",", ":"))

        async def counted() -> bool:
            return await manager.store.client.hget(manager.store.keys.of("metrics"), field) == b"%d" % reclaimed

        await until(counted, f"the metrics agree with the ledger that {reclaimed} were lost")


@pytest.mark.chaos
async def test_a_poison_job_is_buried_and_its_neighbours_are_not(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path):
        neighbours = [await manager.dispatch(jobs.Sleeps(seconds=0.5)).handle() for _ in range(4)]
        poison = await manager.dispatch(jobs.Kills()).handle()
        with pytest.raises(JobError, match="exit code 9"):
            await poison.result(40)
        record = await poison.record()
        assert (record.state, record.reason, record.crashes) == ("dead", "poison", 3)
        for neighbour in neighbours:
            assert await neighbour.result(30) == 1


@pytest.mark.parametrize("how", ["sleep", "regex"])
async def test_a_blocked_event_loop_keeps_its_leases(manager: QueueManager, tmp_path: Path, how: str) -> None:
    async with worker(manager, tmp_path), worker(manager, tmp_path):
        assert await manager.dispatch(jobs.Blocks(seconds=7, how=how)).result(40) == 1
        [queue] = await manager.queues()
        assert queue.ledger["started"] == 1, "it was run twice"


@pytest.mark.chaos
async def test_what_cannot_be_stopped_is_killed(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path):
        with pytest.raises(JobError):
            await manager.dispatch(jobs.Forever()).result(60)
        assert await manager.dispatch(jobs.Add(a=1, b=1)).result(20) == 2


async def test_two_signals_hand_back_at_once(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path) as program:
        ids = await manager.dispatch_many([jobs.Sleeps(seconds=60) for _ in range(15)])
        await running(manager, 10)
        program.terminate()
        await ready(manager, state="stopping")
        program.terminate()
        assert await asyncio.to_thread(program.wait, 15) == 0
        assert (await manager.counts(QUEUE))["ready"] == 15
        for job_id in ids:
            record = await manager.job(job_id)
            assert (record.attempt, record.crashes) == (0, 0)
        await manager.clear(QUEUE)


@pytest.mark.chaos
async def test_a_child_whose_supervisor_died_stops(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path) as program:
        [child] = await ready(manager)
        program.kill()
        await asyncio.to_thread(program.wait)
        await until(lambda: _gone(child.pid), "the child has stopped")


async def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"  # noqa: ASYNC240 (procfs)
    except OSError:
        return True


async def test_a_child_is_replaced_after_max_jobs(manager: QueueManager, tmp_path: Path) -> None:
    async with worker(manager, tmp_path, "--max-jobs", "5"):
        [first] = await ready(manager)
        for number in range(20):
            assert await manager.dispatch(jobs.Add(a=number, b=1)).result(20) == number + 1

        async def replaced() -> bool:
            return first.pid not in {w.pid for w in await manager.workers()}

        await until(replaced, "the child was replaced")
        await ready(manager)
