"""What a job says of itself is kept with it: every line that there is room for, before its outcome is told, from wherever
it runs, at the cost of a few round trips."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from uuid import uuid4

import pytest

from rf_jobs import Job, JobContext, JobError, JobNotFound, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.store.shapes import Report
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import InvalidOption
from rf_jobs.worker.capture import Capture
from tests.support import talkative
from tests.support.jobs import QUEUE, Kills
from tests.support.proxy import ReplyCutter
from tests.support.talkative import LogsPlainly, Says, SaysInProcess, SaysInThread, Ticks

CONFIG = WorkerConfig(queues=[QUEUE], grace=20, sleep=5)


@pytest.fixture
def settings(redis_url: str) -> JobsSettings:
    return JobsSettings(redis_url=redis_url)


@pytest.fixture
async def manager(settings: JobsSettings) -> AsyncIterator[QueueManager]:
    async with QueueManager(Settings(jobs=settings)) as running, WorkerPool(CONFIG, running):
        yield running


class SaysTwo(Job, queue=QUEUE, max_attempts=1):
    async def handle(self, ctx: JobContext) -> None:
        ctx.log("the first of two")
        await ctx.progress(1, 2)
        await asyncio.sleep(0.05)
        ctx.log("the second")
        await ctx.progress(2, 2)


def reports(manager: QueueManager) -> Callable[[], int]:
    """How often something was kept, from now on; as far as the operation's name tells."""
    seen: list[ev.OperationDone] = []
    manager.bus.subscribe(ev.OperationDone, seen.append)
    return lambda: len([one for one in seen if one.op == "ack"])


async def test_lines_of_all_attempts_are_there_when_the_job_is_over(manager: QueueManager) -> None:
    handle = await manager.dispatch(Says(count=2, fail=True)).handle()
    await handle.result(20)
    lines = await handle.logs()
    assert [(line.number, line.attempt, line.message, line.fields) for line in lines] == [
        (1, 1, "line 0", {"number": 0}),
        (2, 1, "line 1", {"number": 1}),
        (3, 2, "line 0", {"number": 0}),
        (4, 2, "line 1", {"number": 1}),
    ]
    record = await handle.record()
    assert record.dispatched_at is not None
    assert all(line.level == logging.INFO and line.at >= record.dispatched_at for line in lines)
    assert [line.number for line in await handle.logs(after=2)] == [3, 4]
    assert await handle.logs(after=9) == []


async def test_the_timeline_has_every_start(manager: QueueManager) -> None:
    handle = await manager.dispatch(Says(fail=True)).handle()
    await handle.result(20)
    timeline = (await handle.record()).timeline
    assert [(moment.event, moment.detail) for moment in timeline] == [
        ("dispatched", QUEUE),
        ("started", "attempt 1"),
        ("retried", "exception"),
        ("started", "attempt 2"),
        ("completed", ""),
    ]
    assert [moment.at for moment in timeline[1:]] == sorted(moment.at for moment in timeline[1:])


async def test_a_failed_job_has_its_lines_too(manager: QueueManager) -> None:
    class Fails(Job, queue=QUEUE, max_attempts=1):
        async def handle(self, ctx: JobContext) -> None:
            ctx.log("last words")
            raise ValueError("no")

        async def failed(self, ctx: JobContext, error: JobError) -> None:
            ctx.log("very last words")

    handle = await manager.dispatch(Fails()).handle()
    with pytest.raises(JobError):
        await handle.result(20)
    assert [line.message for line in await handle.logs()] == ["last words", "very last words"]


async def test_many_lines_and_much_progress_cost_few_round_trips(manager: QueueManager) -> None:
    count = reports(manager)
    handle = await manager.dispatch(Says(count=800)).handle()
    await handle.result(20)
    ticking = await manager.dispatch(Ticks(count=20_000)).handle()
    await ticking.result(20)
    progress = await ticking.progress()
    assert (progress.current, progress.total) == (20_000, 20_000)
    assert len(await handle.logs()) == 800
    record = await ticking.record()
    assert record.started_at is not None
    assert record.finished_at is not None
    allowed = (
        10 * (record.finished_at - record.started_at).total_seconds() + 10
    )  # ten a second, and those that end jobs
    assert count() < allowed


async def test_threads_may_say_something_at_the_same_time(manager: QueueManager) -> None:
    handle = await manager.dispatch(SaysInThread(count=150)).handle()
    await handle.result(20)
    lines = [line.message for line in await handle.logs()]
    assert len(lines) == 450
    for who in "abc":
        assert [line for line in lines if line[0] == who] == [f"{who} {number}" for number in range(150)]
    assert (await handle.progress()).percentage == 100


async def test_a_process_of_its_own(manager: QueueManager) -> None:
    handle = await manager.dispatch(SaysInProcess(count=100)).handle()
    await handle.result(20)
    assert [line.message for line in await handle.logs()] == [f"line {number}" for number in range(100)]
    progress = await handle.progress()
    assert (progress.current, progress.message) == (100, "at 99")


async def test_a_process_that_is_killed_leaves_what_it_said(manager: QueueManager) -> None:
    handle = await manager.dispatch(SaysInProcess(count=3, die=True)).handle()
    with pytest.raises(JobError):
        await handle.result(30)
    lines = await handle.logs()
    assert [line.message for line in lines] == ["line 0", "line 1", "line 2"] * 3, "one for each crash"


async def test_what_is_hard_to_write_down_fails_nothing(manager: QueueManager) -> None:
    handle = await manager.dispatch(talkative.Odd()).handle()
    await handle.result(20)
    long, half, broken, plain, fields, severe = await handle.logs()
    assert len(long.message) == 4_000
    assert half.message == "half ?"
    assert half.fields == {"value": "'half \\ud800'"}
    assert broken.fields == {"value": "(it could not be shown: RuntimeError)"}
    assert plain.fields == {"at": "here", "count": {"1": [2]}}
    assert len(fields.fields) == 20
    assert (severe.message, severe.level_name) == ("severe", "ERROR")


async def test_progress_that_is_no_number_is_refused_where_it_is_told(manager: QueueManager) -> None:
    ctx = JobContext.fake()
    for bad in (float("nan"), float("inf"), "3"):
        with pytest.raises(InvalidOption, match=r"progress: current is .*; give a finite number"):
            ctx.progress(bad, 1)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="progress: total is"):
            await ctx.progress(1, bad)  # type: ignore[arg-type]


async def test_a_job_that_nobody_knows_has_no_log(manager: QueueManager) -> None:
    with pytest.raises(JobNotFound, match="never dispatched here"):
        await manager.job_logs(uuid4())


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"log_lines": 5}, range(995, 1000)),
        ({"log_lines": 5_000, "log_bytes": 1_000}, range(989, 1000)),  # of 90 bytes each
        ({"log_lines": 0}, ()),
    ],
)
async def test_a_log_is_bounded(settings: JobsSettings, limits: dict[str, int], kept: range) -> None:
    async with (
        QueueManager(Settings(jobs=replace(settings, **limits))) as manager,  # type: ignore[arg-type]
        WorkerPool(CONFIG, manager),
    ):
        handle = await manager.dispatch(Says(count=1000)).handle()
        await handle.result(20)
        lines = await handle.logs()
        assert [line.message for line in lines] == [f"line {number}" for number in kept]
        assert [line.number for line in lines] == [number + 1 for number in kept], "numbers say what is missing"
        assert (await handle.record()).state == "completed"


async def test_what_a_zombie_says_is_dropped(manager: QueueManager) -> None:
    job_id = await manager.dispatch(Kills()).on_queue("elsewhere")
    [leased] = await manager.pop_batch("elsewhere", 1)
    letter = await manager.inspector.envelope(str(job_id))
    assert letter is not None
    stale = Report(str(job_id), "somebody.1", "elsewhere", b'{"current":1,"total":1}', 1, (b"{}",))
    assert await manager.store.run(manager.store.commands.report([stale], 10, 10_000)) == [-1]
    assert await manager.job_logs(job_id) == []
    assert (await manager.job_progress(job_id)).current == 0
    await leased.complete()


@pytest.mark.parametrize("threaded", [False, True])
async def test_plain_logging_is_kept_where_it_is_asked_for(settings: JobsSettings, threaded: bool) -> None:
    for captures in (True, False):
        jobs = replace(settings, capture_logging=captures)
        async with QueueManager(Settings(jobs=jobs)) as manager, WorkerPool(CONFIG, manager):
            handle = await manager.dispatch(LogsPlainly(threaded=threaded)).handle()
            await handle.result(20)
            talkative.own.warning("nobody's")
            lines = await handle.logs()
            plain = [*(["from a thread 7"] if threaded else []), "from the loop 7"]
            assert [line.message for line in lines] == [*(plain if captures else []), "by the context"]
            if captures:
                assert lines[0].fields == {"logger": "tests.own"}
    assert not [handler for handler in logging.getLogger().handlers if isinstance(handler, Capture)]


async def test_a_report_whose_reply_is_lost_is_kept_once(redis_url: str) -> None:
    with ReplyCutter(redis_url.removeprefix("unix://").partition("?")[0]) as proxy:
        async with QueueManager(proxy.url) as far, WorkerPool(CONFIG, far):
            proxy.cut(b"the first of two")
            handle = await far.dispatch(SaysTwo()).handle()
            await handle.result(20)
            assert proxy.cuts == 1
            assert [line.message for line in await handle.logs()] == ["the first of two", "the second"]
            assert (await handle.progress()).current == 2
