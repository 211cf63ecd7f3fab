"""A job whose last crash took its whole worker with it: its ``failed`` is called by whoever finds it buried, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rf_jobs import JobError, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.words.config_settings import JobsSettings, WorkerSettings
from tests.support import long_jobs
from tests.support.jobs import QUEUE
from tests.support.long_jobs import DiesWithHook, KillsItsWorker
from tests.support.processes import process, rf_jobs
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], sleep=0.5, lease=1, max_crashes=1)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    settings = Settings(jobs=JobsSettings(redis_url=redis_url), worker=WorkerSettings(max_crashes=1))
    async with QueueManager(settings) as running:
        yield running


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


async def told(path: Path) -> list[str]:
    return lines(path)


async def test_whoever_takes_the_job_back_calls_its_hook(manager: QueueManager, tmp_path: Path) -> None:
    handle = await manager.dispatch(DiesWithHook(path=str(tmp_path / "told"))).handle()
    await manager.pop_batch(QUEUE, 1, lease=0.01)  # whose lease runs out
    async with WorkerPool(CONFIG, manager), WorkerPool(CONFIG, manager):
        assert await until(lambda: told(tmp_path / "told"), "the hook was called") == [
            "ExecutionFailed: its worker process died, 1 times: that is max_crashes"
        ]
        record = await handle.record()
        assert (record.state, record.reason) == ("dead", "poison")
        await asyncio.sleep(1.0)  # two rounds of upkeep of each
    assert len(await told(tmp_path / "told")) == 1


@pytest.mark.chaos
async def test_a_sibling_calls_it_where_a_supervisor_found_the_body(
    manager: QueueManager, redis_url: str, tmp_path: Path
) -> None:
    handle = await manager.dispatch(KillsItsWorker(path=str(tmp_path / "told"))).handle()
    command = rf_jobs("worker", long_jobs.__name__, "--queues", QUEUE, "--redis-url", redis_url, "--processes", "2")
    options = ["--max-crashes", "1", "--no-metrics", "--no-tracing"]
    with process(*command, *options, log=tmp_path / "log"):
        with pytest.raises(JobError):
            await handle.result(60)
        [line] = await until(lambda: told(tmp_path / "told"), "the hook was called")
        assert line.startswith("ExecutionFailed: its worker process died")


async def test_a_hook_that_raises_harms_nobody(manager: QueueManager, tmp_path: Path) -> None:
    await manager.dispatch(DiesWithHook(path=str(tmp_path)))  # a folder: it can't be written to
    await manager.pop_batch(QUEUE, 1, lease=0.01)
    async with WorkerPool(CONFIG, manager):

        async def dead() -> bool:
            return bool(await manager.failed_jobs())

        await until(dead, "it is buried")
        await manager.dispatch(long_jobs.Waits(folder=str(tmp_path)))
        (tmp_path / "go").touch()

        async def empty() -> bool:
            return (await manager.counts(QUEUE))["completed"] == 1

        await until(empty, "the worker goes on")
