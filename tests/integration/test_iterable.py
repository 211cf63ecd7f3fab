"""Long jobs as many small items, and steps: what is done stays done, whatever ends a run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rf_jobs import IterableJob, Job, JobContext, JobError, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.words.errors import InvalidOption
from tests.support import talkative
from tests.support.jobs import QUEUE
from tests.support.processes import process, rf_jobs
from tests.support.talkative import Crooked, InThreads, Items, StepByStep
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], grace=20, sleep=0.5)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


def lines(folder: Path, name: str) -> list[str]:
    path = folder / name
    return path.read_text().split("\n")[:-1] if path.exists() else []


def done(folder: Path) -> list[int]:
    """The items that were done, in order."""
    return [int(line) for line in lines(folder, "items")]


async def test_all_items_once(manager: QueueManager, tmp_path: Path) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(Items(folder=str(tmp_path), count=10)).handle()
        assert await handle.result(20) == 10
    assert done(tmp_path) == list(range(10))
    assert lines(tmp_path, "hooks") == ["start", "complete"]
    assert (await handle.progress()).percentage == 100


async def test_nothing_to_do(manager: QueueManager, tmp_path: Path) -> None:
    async with WorkerPool(CONFIG, manager):
        assert await manager.dispatch(Items(folder=str(tmp_path), count=0)).result(20) == 0
    assert lines(tmp_path, "hooks") == ["start", "complete"]


async def test_after_a_failure_it_goes_on_at_the_item_that_failed(manager: QueueManager, tmp_path: Path) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(
            Items(folder=str(tmp_path), count=10, trouble="fail", at=5, every=1000)
        ).handle()
        assert await handle.result(20) == 10
    assert done(tmp_path) == list(range(10)), "saved at the failure, though not due"
    assert lines(tmp_path, "hooks") == ["start", "resume", "complete"]
    assert (await handle.record()).attempt == 2


async def test_a_shutdown_stops_it_between_two_items_and_another_worker_goes_on(
    manager: QueueManager, tmp_path: Path
) -> None:
    job = Items(folder=str(tmp_path), count=400, every=1000, pause=0.005)
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(job).handle()

        async def some() -> bool:
            return len(done(tmp_path)) > 3

        await until(some, "it has begun")
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < 3, "it did not wait for the whole job"
    assert len(done(tmp_path)) < 400
    assert lines(tmp_path, "hooks") == ["start", "stop: shutdown"]
    record = await handle.record()
    assert record.state == "scheduled"
    assert record.errors == []
    async with WorkerPool(CONFIG, manager):
        assert await handle.result(20) == 400
    assert done(tmp_path) == list(range(400)), "each item once"
    assert lines(tmp_path, "hooks") == ["start", "stop: shutdown", "resume", "complete"]
    assert (await handle.record()).attempt == 1, "a shutdown is no attempt"


async def test_an_item_that_outlasts_the_shutdown_is_done_again(manager: QueueManager, tmp_path: Path) -> None:
    job = Items(folder=str(tmp_path), count=6, trouble="wait", at=3, every=1000)
    async with WorkerPool(CONFIG.shutdown_timeout(0.1), manager):
        handle = await manager.dispatch(job).handle()

        async def there() -> bool:
            return 3 in done(tmp_path)

        await until(there, "it is at the item that waits")
    assert lines(tmp_path, "hooks") == ["start", "stop: shutdown"]
    assert (await handle.record()).state == "ready", "handed back"
    (tmp_path / "go").touch()
    async with WorkerPool(CONFIG, manager):
        assert await handle.result(20) == 6
    assert done(tmp_path) == [0, 1, 2, 3, 3, 4, 5]


async def test_slices_of_time_are_no_attempts(manager: QueueManager, tmp_path: Path) -> None:
    snoozed: list[ev.JobSnoozed] = []
    manager.bus.subscribe(ev.JobSnoozed, snoozed.append)
    async with WorkerPool(CONFIG, manager):
        job = Items(folder=str(tmp_path), count=6, slice=0.05, pause=0.06, every=1000)
        handle = await manager.dispatch(job).handle()
        assert await handle.result(20) == 6
    assert done(tmp_path) == list(range(6))
    assert (await handle.record()).attempt == 1
    assert len(snoozed) == 6, "each run does at least one item"
    assert {event.reason for event in snoozed} == {"max_runtime is over"}


class Timed(Items, timeout=0.5):
    """Its timeout is shorter than the whole of it takes."""


async def test_it_stops_before_its_timeout_would_end_it(manager: QueueManager, tmp_path: Path) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(Timed(folder=str(tmp_path), count=12, pause=0.1, every=1000)).handle()
        assert await handle.result(20) == 12
    assert done(tmp_path) == list(range(12))
    assert (await handle.record()).errors == []


async def test_one_that_is_cancelled_stops(manager: QueueManager, tmp_path: Path) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(Items(folder=str(tmp_path), count=9, trouble="wait", at=2)).handle()

        async def there() -> bool:
            return 2 in done(tmp_path)

        await until(there, "it has begun")
        assert await handle.cancel()
        with pytest.raises(JobError, match="cancelled"):
            await handle.result(20)
    assert done(tmp_path) == [0, 1, 2]
    assert lines(tmp_path, "hooks") == ["start", "stop: cancelled"]


@pytest.mark.chaos
async def test_a_worker_that_is_killed(manager: QueueManager, redis_url: str, tmp_path: Path) -> None:
    """Items behind the last checkpoint are done again; none is left out."""
    job = Items(folder=str(tmp_path), count=12, trouble="die", at=8, every=3)
    handle = await manager.dispatch(job).handle()
    command = rf_jobs("worker", talkative.__name__, "--queues", QUEUE, "--redis-url", redis_url, "--no-metrics")
    with process(*command, log=tmp_path / "log", env={"RF_JOBS_TELEMETRY_TRACING": "false"}):
        assert await handle.result(60) == 12
    counts = Counter(done(tmp_path))
    assert sorted(counts) == list(range(12))
    assert {item: count for item, count in counts.items() if count > 1} == {6: 2, 7: 2}
    assert lines(tmp_path, "hooks") == ["start", "resume", "complete"]
    assert (await handle.record()).crashes == 1


async def test_items_that_a_plain_function_does(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(InThreads(count=3)).handle()
        assert await handle.result(20) == 3
    names = [line.message for line in await handle.logs()]
    assert len(names) == 3
    assert "MainThread" not in names


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("pair", r"items\(\) of Crooked yielded '\(7, 8, 9\)'; yield pairs: cursor, item"),
        ("cursor", "the checkpoint of type dict cannot be written as JSON"),
    ],
)
async def test_crooked_items(manager: QueueManager, what: str, message: str) -> None:
    async with WorkerPool(CONFIG, manager):
        with pytest.raises(JobError, match=message):
            await manager.dispatch(Crooked(what=what)).result(20)


async def test_a_checkpoint_of_another_kind(manager: QueueManager, tmp_path: Path) -> None:
    ctx = JobContext.fake(state=["from", "before"])
    with pytest.raises(InvalidOption, match="which no IterableJob wrote; dispatch it again"):
        await Items(folder=str(tmp_path), count=1).handle(ctx)


def test_a_class_that_lacks_something_is_refused() -> None:
    def no_items() -> type[Job]:
        class NoItems(IterableJob):
            async def each(self, ctx: JobContext, item: int) -> None: ...

        return NoItems

    def no_each() -> type[Job]:
        class NoEach(IterableJob):
            async def items(self, cursor: int | None) -> AsyncIterator[tuple[int, int]]:
                yield 1, 1

        return NoEach

    def shadows() -> type[Job]:
        class Shadows(IterableJob, abstract=True):
            items: list[int]  # type: ignore[assignment]

        return Shadows

    with pytest.raises(InvalidOption, match=r"has no items\(self, cursor\) that is `async def` and yields"):
        no_items()
    with pytest.raises(InvalidOption, match=r"has no each\(self, ctx, item\); define it"):
        no_each()
    with pytest.raises(InvalidOption, match="has a field 'items', which is the name of a method"):
        shadows()


async def test_a_job_can_be_tested_without_a_server(tmp_path: Path) -> None:
    ctx = JobContext.fake()
    assert await Items(folder=str(tmp_path), count=4).handle(ctx) == 4
    assert ctx.state == {"cursor": 3, "done": 4}


# --- steps -----------------------------------------------------------------------------------------------------------


async def test_steps_that_are_done_are_not_done_again(manager: QueueManager, tmp_path: Path) -> None:
    async with WorkerPool(CONFIG, manager):
        handle = await manager.dispatch(StepByStep(folder=str(tmp_path))).handle()
        first, second, attempt = await handle.result(20)
    assert (first, second) == (["a", 1], ["a", 1]), "as a later attempt gets it"
    assert attempt == 3
    assert [lines(tmp_path, name) for name in ("first", "second", "third")] == [["x"], ["x"], ["x", "x"]]


async def test_names_of_steps() -> None:
    ctx = JobContext.fake()
    assert await ctx.step("one", lambda: 1) == 1
    with pytest.raises(InvalidOption, match="step 'one' was done before in this attempt"):
        await ctx.step("one", lambda: 2)
    for bad in ("", "x" * 201, 7):
        with pytest.raises(InvalidOption, match="step: the name is"):
            await ctx.step(bad, lambda: 1)  # type: ignore[call-overload]

    def fails() -> None:
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        await ctx.step("two", fails)
    assert await ctx.step("two", lambda: 2) == 2, "one that failed may be tried again"


class NoJson(Job, queue=QUEUE, max_attempts=1):
    async def handle(self, ctx: JobContext) -> None:
        await ctx.step("odd", object)


class FromAProcess(Job, queue=QUEUE, executor="process", timeout=20, max_attempts=1):
    async def handle(self, ctx: JobContext) -> int:
        return int(await ctx.step("one", lambda: 41)) + 1


async def test_steps_in_a_process_of_their_own(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        assert await manager.dispatch(FromAProcess()).result(20) == 42


async def test_an_answer_that_is_no_json_is_refused(manager: QueueManager) -> None:
    async with WorkerPool(CONFIG, manager):
        with pytest.raises(JobError, match="the answer of step 'odd' of type object cannot be written as JSON"):
            await manager.dispatch(NoJson()).result(20)
