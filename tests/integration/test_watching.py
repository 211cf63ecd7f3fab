"""Watching a job: everything is told, in order, until it is over; whoever reads slowly, and whatever becomes of the
connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from rf_jobs import (
    AttemptError,
    Job,
    JobContext,
    JobNotFound,
    JobUpdate,
    LogLine,
    Progress,
    QueueManager,
    ResultExpired,
    Settings,
    StateChanged,
    WorkerConfig,
    WorkerPool,
)
from rf_jobs.client import ear, watching
from rf_jobs.sync import QueueManager as SyncManager
from rf_jobs.words.config_settings import JobsSettings
from tests.support.jobs import QUEUE, Add, Fails
from tests.support.long_jobs import Waits
from tests.support.talkative import Says, Ticks, is_there
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], grace=20, sleep=5)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(CONFIG, manager) as running:
        yield running


def told(updates: list[JobUpdate]) -> list[Any]:
    """The gist of each, without progress."""
    gist: list[Any] = []
    for update in updates:
        match update:
            case StateChanged():
                gist.append((update.state, update.attempt))
            case LogLine() | AttemptError():
                gist.append(update.message)
            case _:
                pass
    return gist


async def all_of(manager: QueueManager, job_id: Any) -> list[JobUpdate]:
    async with asyncio.timeout(20):
        return [update async for update in manager.watch(job_id)]


async def test_a_whole_life(manager: QueueManager) -> None:
    job_id = await manager.dispatch(Says(count=2, fail=True)).delay(0.1)
    watching = asyncio.create_task(all_of(manager, job_id))
    await until(lambda: manager.store.client.exists(manager.store.keys.of("live")), "it is watched")
    async with WorkerPool(CONFIG, manager):
        gist = told(await watching)
    assert gist[0] == ("scheduled", 0)
    assert gist[-1] == ("completed", 2)
    second = gist.index(("running", 2))
    assert gist.index("no") < second
    assert [one for one in gist if str(one).startswith("line")] == ["line 0", "line 1"] * 2
    assert gist[second + 1 : second + 3] == ["line 0", "line 1"]


async def test_a_job_that_is_over_is_told_at_once(manager: QueueManager, pool: WorkerPool) -> None:
    job_id = await manager.dispatch(Says(count=1))
    await manager.wait(job_id, 20)
    assert told(await all_of(manager, job_id)) == ["line 0", ("completed", 1)]
    dead = await manager.dispatch(Fails()).handle()
    await until(lambda: _is_over(manager, dead.id), "it is dead")
    last = (await all_of(manager, dead.id))[-1]
    assert isinstance(last, StateChanged)
    assert (last.state, last.reason, last.attempt, last.is_final) == ("dead", "exception", 3, True)
    assert last.at == (await dead.record()).finished_at


async def _is_over(manager: QueueManager, job_id: Any) -> bool:
    return (await manager.job(job_id)).finished_at is not None


async def test_more_lines_than_one_look_takes(manager: QueueManager, pool: WorkerPool) -> None:
    job_id = await manager.dispatch(Says(count=watching.LINES + 7))
    await manager.wait(job_id, 20)
    updates = await all_of(manager, job_id)
    assert [update.number for update in updates if isinstance(update, LogLine)] == list(range(1, watching.LINES + 8))


async def test_what_nobody_knows_cannot_be_watched(manager: QueueManager) -> None:
    with pytest.raises(JobNotFound, match="never dispatched here"):
        await all_of(manager, uuid4())


async def test_a_job_that_is_cleared_away_meanwhile(manager: QueueManager) -> None:
    job_id = await manager.dispatch(Add(a=1, b=1))
    updates = manager.watch(job_id)
    assert told([await anext(updates)]) == [("ready", 0)]
    following = asyncio.ensure_future(anext(updates))
    await asyncio.sleep(0)
    await manager.clear(QUEUE)
    assert told([await asyncio.wait_for(following, 20)]) == [("cancelled", 0)]
    assert [update async for update in updates] == []


async def test_a_job_whose_record_is_not_kept(redis_url: str) -> None:
    settings = Settings(jobs=JobsSettings(redis_url=redis_url, completed_keep=0))
    async with QueueManager(settings) as manager:
        job_id = await manager.dispatch(Says(count=1))
        updates = manager.watch(job_id)
        await anext(updates)
        async with WorkerPool(CONFIG, manager):
            rest = [update async for update in updates]
        assert told(rest)[-1][0] == "completed"


async def test_a_slow_reader_gets_the_newest_progress_and_makes_nobody_wait(
    manager: QueueManager, tmp_path: Path
) -> None:
    job_id = await manager.dispatch(Ticks(count=5_000))
    updates = manager.watch(job_id)
    await anext(updates)
    async with WorkerPool(CONFIG, manager):
        await manager.wait(job_id, 20)  # all the while nobody reads
        rest = [update async for update in updates]
    assert [type(update) for update in rest] == [Progress, StateChanged]
    assert isinstance(rest[0], Progress)
    assert rest[0].current == 5_000


async def test_changes_are_heard_of_and_not_looked_for(
    manager: QueueManager, pool: WorkerPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_UP_SECONDS", 60.0)
    job_id = await manager.dispatch(Waits(folder=str(tmp_path))).delay(0.2)
    async with asyncio.timeout(20):
        states = []
        async for update in manager.watch(job_id):
            if isinstance(update, StateChanged):
                states.append(update.state)
                if update.state == "running":
                    (tmp_path / "go").touch()
    assert [state for state in states if state != "ready"] == ["scheduled", "running", "completed"]


async def test_the_connection_may_be_lost(
    manager: QueueManager,
    pool: WorkerPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(watching, "LOOK_UP_SECONDS", 60.0)
    job_id = await manager.dispatch(Waits(folder=str(tmp_path)))
    updates = manager.watch(job_id)
    async with asyncio.timeout(20):
        async for update in updates:
            if isinstance(update, StateChanged) and update.state == "running":
                break
        await manager.store.client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        (tmp_path / "go").touch()
        rest = [update async for update in updates]
    assert told(rest) == [("completed", 1)]
    assert "lost the connection that listens" in caplog.text


async def test_many_watchers_of_one_job_share_a_connection(manager: QueueManager, tmp_path: Path) -> None:
    job_id = await manager.dispatch(Waits(folder=str(tmp_path)))
    lives: list[list[JobUpdate]] = [[] for _ in range(20)]

    async def follow(life: list[JobUpdate]) -> None:
        async with asyncio.timeout(20):
            async for update in manager.watch(job_id):
                life.append(update)  # noqa: PERF401 (it is looked at meanwhile)

    async def all_saw(state: str) -> bool:
        return all(any(isinstance(one, StateChanged) and one.state == state for one in life) for life in lives)

    watchers = [asyncio.create_task(follow(life)) for life in lives]

    async def listening() -> bool:
        counts = await manager.store.client.execute_command(
            "PUBSUB", "NUMSUB", manager.store.keys.of("live", str(job_id))
        )
        assert counts is not None
        return bool(counts[1] == 1)

    await until(listening, "one connection listens")
    assert await manager.store.client.execute_command("PUBSUB", "CHANNELS") == [
        manager.store.keys.of("live", str(job_id)).encode()
    ]
    await until(lambda: all_saw("ready"), "all watch")
    async with WorkerPool(CONFIG, manager):
        await until(lambda: all_saw("running"), "all saw it start")  # or they may be told only its end
        (tmp_path / "go").touch()
        await asyncio.gather(*watchers)
    assert {tuple(told(life)) for life in lives} == {(("ready", 0), ("running", 1), ("completed", 1))}


async def test_nothing_is_announced_while_nobody_watches(manager: QueueManager, pool: WorkerPool) -> None:
    async with manager.store.client.pubsub(ignore_subscribe_messages=True) as everything:
        await everything.psubscribe("*live*")
        await manager.dispatch(Says(count=3, fail=True)).result(20)
        assert await everything.get_message(timeout=0.1) is None
    assert not await manager.store.client.exists(manager.store.keys.of("live"))


async def test_a_watch_that_is_left_ends(manager: QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ear, "HEAR_SECONDS", 0.05)
    job_id = await manager.dispatch(Add(a=1, b=1))
    updates = manager.watch(job_id)
    await anext(updates)
    await updates.aclose()

    async def nobody() -> bool:
        return not await manager.store.client.execute_command("PUBSUB", "CHANNELS")

    await until(nobody, "nobody listens any more")
    await until(_no_ear, "the task has ended")
    assert told([await anext(manager.watch(job_id))]) == [("ready", 0)], "and a new one can be had"


async def _no_ear() -> bool:
    return not [task for task in asyncio.all_tasks() if task.get_name() == "rf-jobs-live"]


async def test_a_manager_that_is_closed_ends_its_watches(redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        job_id = await manager.dispatch(Add(a=1, b=1))
        updates = manager.watch(job_id)
        await anext(updates)
    await updates.aclose()


async def test_without_a_loop(redis_url: str, pool: WorkerPool) -> None:
    def follow() -> list[JobUpdate]:
        with SyncManager(redis_url) as manager:
            job_id = manager.dispatch(Says(count=1)).sync()
            updates = list(manager.watch(job_id))
            assert [line.message for line in manager.job_logs(job_id)] == ["line 0"]
            for _ in manager.watch(job_id):  # left early
                break
        return updates

    gist = told(await asyncio.to_thread(follow))
    assert gist[-1] == ("completed", 1)
    assert "line 0" in gist


async def test_waiters_of_all_kinds_hear_of_the_end(manager: QueueManager, redis_url: str, tmp_path: Path) -> None:
    """Several in one manager, others elsewhere, and those who watch."""
    job_id = await manager.dispatch(Waits(folder=str(tmp_path)))
    async with QueueManager(redis_url) as other:
        waits = [asyncio.create_task(one.wait(job_id, 20)) for one in (manager, manager, other)]
        watch = asyncio.create_task(all_of(other, job_id))
        (tmp_path / "go").touch()
        async with WorkerPool(CONFIG, manager):
            answers = await asyncio.gather(*waits)
            assert told(await watch)[-1] == ("completed", 1)
    assert len(set(answers)) == 1


class Once(Job, queue=QUEUE, max_attempts=1):
    """Fails until ``<folder>/mended`` is there; answers with nothing."""

    folder: str

    async def handle(self, ctx: JobContext) -> None:
        if not is_there(self.folder, "mended"):
            raise ValueError("not yet")


async def test_a_wait_for_a_job_that_is_replayed(manager: QueueManager, pool: WorkerPool, tmp_path: Path) -> None:
    job_id = await manager.dispatch(Once(folder=str(tmp_path)))
    with pytest.raises(Exception, match="not yet"):
        await manager.wait(job_id, 20)
    (tmp_path / "mended").touch()
    await manager.pause(QUEUE)
    assert await manager.retry_failed(job_id)
    waiting = asyncio.create_task(manager.wait(job_id, 20))
    states: list[str] = []
    watch = asyncio.create_task(all_of(manager, job_id))
    await until(lambda: manager.store.client.exists(manager.store.keys.of("live")), "it is watched")
    assert not waiting.done()
    await manager.resume(QUEUE)
    assert await waiting is None, "a job whose handler answers with nothing"
    states = [update.state for update in await watch if isinstance(update, StateChanged)]
    assert states[-1] == "completed"


class Answers(Job, queue=QUEUE, result_ttl=0.05):
    """Its result is kept for a moment."""

    async def handle(self, ctx: JobContext) -> int:
        return 7


async def test_a_result_that_is_gone_is_not_taken_for_none(manager: QueueManager, pool: WorkerPool) -> None:
    job_id = await manager.dispatch(Answers())

    async def gone() -> bool:
        record = await manager.job(job_id)
        return record.state == "completed" and not record.has_result

    await until(gone, "its result is gone")
    with pytest.raises(
        ResultExpired, match=r"its result was kept only until .* UTC; give the class a longer result_ttl"
    ):
        await manager.wait(job_id, 20)
