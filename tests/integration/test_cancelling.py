"""Cancelling is honest: it is known who has heard of a request, and when, and nobody is told that a job has stopped which
has not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rf_jobs import Cancellation, JobError, JobRecord, QueueManager, State, StateChanged, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.worker import upkeep
from tests.support.jobs import QUEUE, Add, Sleeps
from tests.support.talkative import AsksInThread, Deaf
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], grace=20, sleep=5)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


@pytest.fixture
def heard(manager: QueueManager) -> list[ev.Event]:
    seen: list[ev.Event] = []
    for kind in (ev.CancelRequested, ev.JobCancelAcknowledged, ev.JobDiscarded, ev.JobCancelled, ev.JobOverran):
        manager.bus.subscribe(kind, seen.append)
    return seen


def request_of(record: JobRecord) -> Cancellation:
    assert record.cancellation is not None
    return record.cancellation


async def running(manager: QueueManager, job_id: object) -> None:
    async def runs() -> bool:
        return (await manager.job(str(job_id))).state == State.RUNNING

    await until(runs, "it runs")


async def test_all_stages_are_written_down(
    manager: QueueManager, heard: list[ev.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BEAT_SECONDS", 30.0)  # the heartbeat would be too late
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(Sleeps(seconds=50)).handle()
        await running(manager, handle.id)
        assert (await handle.record()).cancellation is None
        assert await handle.cancel("not needed")
        with pytest.raises(JobError, match="not needed"):
            await handle.result(10)
    request = request_of(await handle.record())
    assert (request.stage, request.reason) == ("stopped", "not needed")
    assert request.requested_at is not None
    assert request.acknowledged_at is not None
    assert request.stopped_at is not None
    assert request.requested_at <= request.acknowledged_at <= request.stopped_at
    assert (request.stopped_at - request.requested_at).total_seconds() < 5, "it was told at once, not by a heartbeat"
    assert [type(event).__name__ for event in heard] == ["CancelRequested", "JobCancelAcknowledged", "JobDiscarded"]
    told = heard[1]
    assert isinstance(told, ev.JobCancelAcknowledged)
    assert (told.job_id, told.queue, told.job_class) == (str(handle.id), QUEUE, "tests.support.jobs:Sleeps")
    assert told.worker.startswith("w")
    assert 0 <= told.seconds < 5


async def test_the_heartbeat_tells_where_the_faster_word_is_lost(
    manager: QueueManager, heard: list[ev.Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = WorkerPool(CONFIG, manager)
    monkeypatch.setattr(pool, "_hear", lambda: asyncio.sleep(0))
    async with pool:
        handle = await manager.dispatch(Sleeps(seconds=50)).handle()
        await running(manager, handle.id)
        await handle.cancel()
        with pytest.raises(JobError):
            await handle.result(20)
    assert request_of(await handle.record()).acknowledged_at is not None
    assert [type(event).__name__ for event in heard] == ["CancelRequested", "JobCancelAcknowledged", "JobDiscarded"]


async def test_one_that_nobody_runs_is_only_requested(manager: QueueManager) -> None:
    job_id = await manager.dispatch(Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    assert await manager.cancel(job_id)
    request = request_of(await manager.job(job_id))
    assert (request.stage, request.acknowledged_at, request.stopped_at) == ("requested", None, None)
    assert request.requested_at is not None
    await leased.complete(7)
    request = request_of(await manager.job(job_id))
    assert (request.stage, request.stopped_at) == ("too late", None)
    assert await manager.wait(job_id) == 7


async def test_one_that_waits_has_stopped_at_once(manager: QueueManager, heard: list[ev.Event]) -> None:
    for job_id in [await manager.dispatch(Add(a=1, b=1)), await manager.dispatch(Add(a=1, b=1)).delay(60)]:
        assert await manager.cancel(job_id, "why not")
        request = request_of(await manager.job(job_id))
        assert (request.stage, request.reason) == ("stopped", "why not")
        assert request.requested_at == request.stopped_at is not None
        assert not await manager.cancel(job_id), "it was over already"
    assert [type(event).__name__ for event in heard] == ["JobCancelled"] * 2


async def test_a_thread_is_told_and_stops_when_it_asks(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(AsksInThread()).handle()
        await running(manager, handle.id)
        await handle.cancel()
        with pytest.raises(JobError):
            await handle.result(20)
    assert request_of(await handle.record()).acknowledged_at is not None


async def test_a_handler_that_does_not_listen_is_reported_and_not_called_stopped(
    manager: QueueManager, heard: list[ev.Event], tmp_path: Path
) -> None:
    async with WorkerPool(CONFIG.grace(0.3), manager):
        handle = await manager.dispatch(Deaf(folder=str(tmp_path))).handle()
        await running(manager, handle.id)
        await handle.cancel()

        async def reported() -> bool:
            return any(isinstance(event, ev.JobOverran) for event in heard)

        await until(reported, "it is reported")
        record = await handle.record()
        assert record.state == "running", "since it does run"
        assert request_of(record).stage == "acknowledged"
        await asyncio.sleep(0.5)
        assert len([event for event in heard if isinstance(event, ev.JobOverran)]) == 1, "once"
        (tmp_path / "go").touch()
        with pytest.raises(JobError):
            await handle.result(20)
    assert request_of(await handle.record()).stage == "stopped"


async def test_a_watcher_sees_the_stages(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(Sleeps(seconds=50)).handle()
        stages = []
        async for update in handle.watch():
            if isinstance(update, StateChanged) and update.state == "running":
                await handle.cancel()
            if isinstance(update, Cancellation):
                stages.append(update.stage)
    assert stages[-1] == "stopped"
    assert stages == [stage for stage in ("requested", "acknowledged", "stopped") if stage in stages]


async def test_a_replay_forgets_the_request(manager: QueueManager) -> None:
    job_id = await manager.dispatch(Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    await manager.cancel(job_id)
    await leased.fail("it failed first")
    assert request_of(await manager.job(job_id)).stage == "too late"
    assert await manager.retry_failed(job_id)
    assert (await manager.job(job_id)).cancellation is None
