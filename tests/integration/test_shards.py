"""Four shards, with real workers: what one would not notice, and what one is told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from rf_jobs import Batch, Chain, InvalidOption, Job, QueueManager, Scheduler, WorkerConfig, WorkerPool
from rf_jobs.model.events import BatchFinished, Event, JobBlocked, JobDispatched, JobUnblocked
from rf_jobs.store import shard_calls
from rf_jobs.store.calls import Left, text
from rf_jobs.testing import drain
from rf_jobs.words.config_settings import JobsSettings, Settings
from rf_jobs.words.errors import BackendError, BatchClosed, ConfigError, DuplicateJob, JobNotFound
from rf_jobs.words.states import State
from tests.support.flow_jobs import Breaks, Note, Tells, Waits, gate, mended, seen
from tests.support.waiting import until

PLACES = {"one": 1, "two": 2, "three": 3, "default": 0, "flow": 0}
CONFIG = WorkerConfig(queues=[*PLACES], sleep=5)


def sharded(url: str, shards: int = 4, places: dict[str, int] | None = None) -> Settings:
    return Settings(jobs=JobsSettings(redis_url=url, shards=shards, queue_shards=PLACES if places is None else places))


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    gate.clear()
    mended.clear()
    async with QueueManager(sharded(redis_url)) as running:
        yield running
        for queue in await running.queues():
            assert queue.imbalance == 0, queue
            assert queue.counts["blocked"] == 0, "somebody waits for ever"
        assert await running.store.run(running.store.commands.unsettled()) == 0


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(CONFIG, manager) as running:
        yield running
        gate.set()


@pytest.fixture
def events(manager: QueueManager) -> list[Event]:
    heard: list[Event] = []
    for kind in (BatchFinished, JobBlocked, JobUnblocked, JobDispatched):
        manager.bus.subscribe(kind, heard.append)
    return heard


async def test_jobs_of_all_shards_run_and_are_found(manager: QueueManager, pool: WorkerPool) -> None:
    ids = {queue: await manager.dispatch_to(Note(what=queue), queue) for queue in PLACES}
    for queue, job_id in ids.items():
        assert await manager.wait(job_id, 10) == queue
        record = await manager.job(job_id)
        assert (record.queue, record.state, record.result) == (queue, "completed", queue)
    assert {queue.name for queue in await manager.queues()} == set(PLACES)
    (worker,) = await manager.workers()
    assert set(worker.queues) == set(PLACES)
    keys = await manager.store.client.keys("*done:*")
    assert {text(key).partition(":")[0] for key in keys} == {"{rf}", "{rf/1}", "{rf/2}", "{rf/3}"}


# --- what hangs on jobs in other shards ----------------------------------------------------------------------------


async def test_a_job_waits_for_parents_in_other_shards(manager: QueueManager, events: list[Event]) -> None:
    first = await manager.dispatch_to(Note(what="a"), "one")
    second = await manager.dispatch_to(Note(what="b"), "two")
    child = await manager.dispatch_to(Tells(), "three").depends_on(first, second)
    record = await manager.job(child)
    assert (record.state, record.queue) == ("blocked", "three")
    (reason,) = [r for r in (await manager.explain(child)).reasons if r.code == "dependency"]
    assert set(reason.blockers) == {str(first), str(second)}, "by their ids, wherever they are"
    async with WorkerPool(CONFIG, manager):
        assert sorted(await manager.wait(child, 10)) == ["a", "b"]
    assert [type(e).__name__ for e in events if isinstance(e, (JobBlocked, JobUnblocked))] == [
        "JobBlocked",
        "JobUnblocked",
    ]


async def test_a_parent_that_is_over_counts_as_such(manager: QueueManager, pool: WorkerPool) -> None:
    done = await manager.dispatch_to(Note(what="early"), "one")
    await manager.wait(done, 10)
    assert await manager.dispatch_to(Tells(), "two").depends_on(done).result(10) == "early"
    dead = await manager.dispatch_to(Breaks(), "one")
    await until(partial(_is, manager, dead, "dead"), "it died")
    for policy, state in (("cancel", "cancelled"), ("dead", "dead"), ("run", "completed")):
        child = await manager.dispatch_to(Note(what=policy), "three").depends_on(dead, on_failure=policy)  # type: ignore[arg-type]
        await until(partial(_is, manager, child, state), f"{policy} makes it {state}")


async def test_a_parent_that_nobody_knows_is_refused(manager: QueueManager) -> None:
    stranger = "00000000-0000-7000-8000-000000000000"
    with pytest.raises(JobNotFound, match=stranger):
        await manager.dispatch_to(Note(what="no"), "two").depends_on(stranger)
    assert await manager.size("two") == 0


async def test_what_was_undone_by_a_failure_elsewhere_runs_after_its_replay(
    manager: QueueManager, pool: WorkerPool
) -> None:
    parent = await manager.dispatch_to(Breaks(), "one")
    child = await manager.dispatch_to(Note(what="child"), "two").depends_on(parent)
    grandchild = await manager.dispatch_to(Note(what="grandchild"), "three").depends_on(child)
    await until(partial(_is, manager, grandchild, "cancelled"), "they are undone")
    assert (await manager.job(child)).reason == f"{parent} dead"
    mended.set()
    await manager.retry_failed(parent)
    await until(partial(_is, manager, grandchild, "completed"), "they have run")


@pytest.mark.parametrize("queues", [("one", "two", "three"), ("one", "one", "two"), ("two", "one", "one")])
async def test_a_chain_goes_through_shards(manager: QueueManager, pool: WorkerPool, queues: tuple[str, ...]) -> None:
    chain = Chain([manager.dispatch_to(Note(what="first"), queues[0]), manager.dispatch_to(Tells(), queues[1]), manager.dispatch_to(Tells(), queues[2])])  # fmt: skip
    await chain.dispatch(manager)
    assert await chain.wait(10) == "completed"
    assert seen == ["first", ("previous", "first"), ("previous", "first")]


@pytest.mark.parametrize("home", ["one", "two"])
async def test_a_chain_grows_from_inside(manager: QueueManager, pool: WorkerPool, home: str) -> None:
    chain = Chain([manager.dispatch_to(_Grows(), home), manager.dispatch_to(Note(what="next"), "three")])
    await chain.dispatch(manager)
    assert await chain.wait(10) == "completed"
    assert seen == ["inserted", "next", "appended", "appended too"]


class _Grows(Job, queue="one"):
    async def handle(self, ctx: Any) -> None:
        manager = ctx.manager
        await ctx.chain.append(manager.dispatch_to(Note(what="appended"), "two"))
        await ctx.chain.append(manager.dispatch_to(Note(what="appended too"), "one"))
        await ctx.chain.insert(manager.dispatch_to(Note(what="inserted"), "two"))


async def test_a_batch_over_all_shards(manager: QueueManager, pool: WorkerPool, events: list[Event]) -> None:
    members = [manager.dispatch_to(Note(what=f"{queue} {n}"), queue) for n in range(5) for queue in PLACES]
    inner = Batch([manager.dispatch_to(Note(what="inner"), "three")]).finally_(
        manager.dispatch_to(Note(what="inner over"), "one")
    )
    batch = Batch([*members, inner]).then(manager.dispatch_to(Note(what="then"), "two")).finally_(manager.dispatch_to(Note(what="over"), "three"))  # fmt: skip
    await batch.dispatch(manager)
    assert await batch.wait(10) == "completed"
    await until(lambda: _ran(len(members) + 4), "the callbacks ran")
    progress = await batch.progress()
    assert (progress.total, progress.pending, progress.failed) == (26, 0, 0)
    assert [e.state for e in events if isinstance(e, BatchFinished)] == ["completed", "completed"]


async def test_a_failure_cancels_members_elsewhere_and_they_come_back(manager: QueueManager, pool: WorkerPool) -> None:
    waits = [manager.dispatch_to(Note(what=queue), queue).delay(3600) for queue in ("one", "two", "three")]
    batch = Batch([manager.dispatch_to(Breaks(), "two"), *waits]).catch(manager.dispatch_to(Note(what="catch"), "one"))
    await batch.dispatch(manager)
    assert await batch.wait(10) == "failed"
    handle = manager.batch(batch.id)
    failed = await handle.failed_jobs()
    assert sorted(record.state for record in failed) == ["cancelled", "cancelled", "cancelled", "dead"]
    assert "breaks" in str(await handle.error())
    mended.set()
    assert await handle.retry_failed() == 1
    assert await handle.wait(10) == "completed"
    assert sorted(str(each) for each in seen if each != "breaks") == ["catch", "one", "three", "two"]


async def test_a_batch_that_is_over_takes_no_member_from_elsewhere(manager: QueueManager, pool: WorkerPool) -> None:
    batch = Batch([manager.dispatch_to(Note(what="a"), "one")])
    await batch.dispatch(manager)
    await batch.wait(10)
    with pytest.raises(BatchClosed, match="completed"):
        await manager.batch(batch.id).add(manager.dispatch_to(Note(what="late"), "two"))
    assert await manager.size("two") == 0


async def test_a_batch_is_cancelled_everywhere(manager: QueueManager) -> None:
    chain = Chain([manager.dispatch_to(Note(what=queue), queue) for queue in ("three", "two")])
    batch = Batch([manager.dispatch_to(Note(what="a"), "one"), manager.dispatch_to(Note(what="b"), "two"), chain])
    await batch.dispatch(manager)
    assert await manager.batch(batch.id).cancel("enough")
    assert await batch.wait(10) == "cancelled"
    for queue in ("one", "two", "three"):
        assert (await manager.queue(queue)).counts["cancelled"] > 0
    assert [record.state for record in await manager.batches()] == ["cancelled", "cancelled"]


async def test_a_group_sent_again_is_not_doubled(manager: QueueManager, pool: WorkerPool) -> None:
    for _ in range(2):
        batch = Batch([manager.dispatch_to(Note(what="a"), "one"), manager.dispatch_to(Note(what="b"), "two")])
        batch.with_id("01900000-0000-7000-8000-000000000001")
        await batch.dispatch(manager)
        await batch.wait(10)
    assert sorted(seen) == ["a", "b"]


# --- what is in one shard ------------------------------------------------------------------------------------------


class _Capped(Job, concurrency=1):
    async def handle(self, ctx: Any) -> None: ...


class _Once(Job, unique_for=60):
    async def handle(self, ctx: Any) -> None: ...


@pytest.mark.parametrize(("job", "what"), [(_Capped(), "limit"), (_Once(), "unique lock")])
async def test_what_can_not_bind_across_shards_is_refused(manager: QueueManager, job: Job, what: str) -> None:
    await manager.dispatch_to(job, "one")
    with pytest.raises(
        InvalidOption, match=rf"the {what} .* is in shard 1, and queue 'two' is in shard 2.*queue_shards"
    ):
        await manager.dispatch_to(job, "two")
    assert await manager.size("two") == 0
    await manager.clear("one")


async def test_all_have_to_agree_where_queues_are(manager: QueueManager, redis_url: str) -> None:
    await manager.dispatch_to(Note(what="a"), "one")
    async with QueueManager(sharded(redis_url, 4, PLACES | {"one": 2})) as other:
        with pytest.raises(
            InvalidOption, match="queue 'one' is in shard 1 of this store, and in shard 2 by the settings here"
        ):
            await other.dispatch_to(Note(what="b"), "one")
        pool = WorkerPool(CONFIG, other)
        with pytest.raises(InvalidOption, match="queue 'one'"):
            await pool.start()
    with pytest.raises(BackendError, match="divided into 4 shards, and shards is 8 here"):
        await QueueManager.connect(sharded(redis_url, 8))
    with pytest.raises(BackendError, match="divided into 4 shards, and shards is 1 here"):
        await QueueManager.connect(redis_url)
    with pytest.raises(ConfigError, match=r"shard 4, and jobs\.shards is 4"):
        QueueManager(sharded(redis_url, 4, {"one": 4}))
    await manager.clear("one")


# --- the rest of the interface -------------------------------------------------------------------------------------


async def test_schedules_are_where_their_jobs_are(manager: QueueManager) -> None:
    await manager.schedules.upsert("in-one", Note(what="x"), every=60, queue="one")
    await manager.schedules.upsert("in-two", Note(what="y"), cron="0 0 * * *", queue="two")
    assert [info.name for info in await manager.schedules.list()] == ["in-one", "in-two"]
    job_id = await manager.schedules.trigger("in-two")
    assert (await manager.job(job_id)).queue == "two"
    assert await manager.schedules.pause("in-one")
    assert not await manager.schedules.pause("in-one")
    assert await manager.schedules.resume("in-one")
    assert await manager.schedules.upsert("in-one", Note(what="x"), every=60, queue="three"), "it moves"
    assert await manager.schedules.count() == 2
    assert (await manager.schedules.get("in-one")).queue == "three"
    for name in ("in-one", "in-two"):
        await manager.schedules.remove(name)
    assert await manager.schedules.count() == 0
    await manager.clear("two")


async def test_operators_reach_all_shards(manager: QueueManager) -> None:
    ids = {queue: await manager.dispatch_to(Breaks(), queue) for queue in ("one", "two", "three")}
    assert await manager.cancel(ids["three"], "for the test")
    await manager.pause("two")
    assert (await manager.queue("two")).paused
    await manager.resume("two")
    await manager.pause_class(Breaks)
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _held(manager, 2), "they are held in both shards")
        await manager.resume_class(Breaks)
        for queue in ("one", "two"):
            await until(partial(_is, manager, ids[queue], "dead"), "they died")
    assert {record.id for record in await manager.failed_jobs()} == {ids["one"], ids["two"]}
    assert await manager.forget_failed(ids["one"])
    survey = await manager.inspector.survey()
    assert {queue.name for queue in survey.queues} == {"one", "two", "three"}


async def test_what_a_process_that_died_has_not_carried_a_worker_does(manager: QueueManager) -> None:
    """The dispatcher is gone before it could tell the other shard."""
    parent = await manager.dispatch_to(Note(what="parent"), "one")
    commands, store = manager.store.commands, manager.store
    carry, manager.lifecycle._carry = manager.lifecycle._carry, _nothing  # type: ignore[method-assign]
    child = await manager.dispatch_to(Tells(), "two").depends_on(parent)
    assert await store.run(commands.unsettled()) == 1
    (words,) = await store.run(shard_calls.outgoing(commands))
    assert (words.source, words.target) == (2, 1)
    manager.lifecycle._carry = carry  # type: ignore[method-assign]
    async with WorkerPool(CONFIG, manager):
        assert await manager.wait(child, 20) == "parent"


async def test_a_call_sent_again_brings_nothing_twice(manager: QueueManager) -> None:
    parent = await manager.dispatch_to(Note(what="parent"), "one")
    commands, store = manager.store.commands, manager.store
    carry, manager.lifecycle._carry = manager.lifecycle._carry, _nothing  # type: ignore[method-assign]
    child = await manager.dispatch_to(Tells(), "two").depends_on(parent)
    (words,) = await store.run(shard_calls.outgoing(commands))
    manager.lifecycle._carry = carry  # type: ignore[method-assign]
    for _ in range(3):
        await store.run(shard_calls.deliver(commands, words))
    async with WorkerPool(CONFIG, manager):
        assert await manager.wait(child, 10) == "parent"
    await store.run(shard_calls.deliver(commands, words))  # by one who slept over it
    assert await store.run(commands.unsettled()) == 0
    assert len([each for each in seen if isinstance(each, tuple)]) == 1


async def _nothing() -> Any:
    return Left(0)


async def _is(manager: QueueManager, job: Any, state: str) -> bool:
    return (await manager.job(job)).state == state


async def _held(manager: QueueManager, count: int) -> bool:
    return sum(queue.counts["blocked"] for queue in await manager.queues()) == count


async def _ran(count: int) -> bool:
    return len(seen) >= count


async def test_a_running_job_is_stopped_in_any_shard(manager: QueueManager, pool: WorkerPool) -> None:
    job_id = await manager.dispatch_to(Waits(), "three")
    await until(partial(_is, manager, job_id, "running"), "it runs")
    assert await manager.cancel(job_id, "enough")
    await until(partial(_is, manager, job_id, "cancelled"), "its worker has heard of it")


async def test_a_silent_workers_jobs_are_taken_back_in_all_shards(manager: QueueManager) -> None:
    ids = [await manager.dispatch_to(Note(what=queue), queue) for queue in ("one", "two")]
    for queue in ("one", "two"):
        (leased,) = await manager.pop_batch(queue, 1, lease=0.001)
        assert leased.queue == queue
    async with WorkerPool(CONFIG, manager):
        assert [await manager.wait(each, 20) for each in ids] == ["one", "two"]
        assert {(await manager.job(each)).crashes for each in ids} == {1}


async def test_draining_follows_what_is_carried(manager: QueueManager) -> None:
    chain = Chain([manager.dispatch_to(Note(what="a"), "one"), manager.dispatch_to(Tells(), "two")])
    await chain.dispatch(manager)
    await drain(manager)
    assert (await chain.progress()).pending == 0
    assert seen == ["a", ("previous", "a")]


async def test_a_batch_whose_member_fails_before_all_of_it_is_sent_ends_as_failed(manager: QueueManager) -> None:
    """Its steps elsewhere are sent after the first ones, which may be faster."""
    chain = Chain([manager.dispatch_to(Note(what="step"), queue) for queue in ("one", "two", "three", "one")])
    batch = Batch([manager.dispatch_to(Breaks(), "two"), chain]).catch(manager.dispatch_to(Note(what="catch"), "two"))
    send_all, sent = manager.placer._coalescer.send_all, 0

    async def slowly(items: Any) -> Any:
        nonlocal sent
        sent += 1
        said = await send_all(items)
        if sent == 1:
            await until(lambda: _dead(manager, "two"), "it died")
        return said

    manager.placer._coalescer.send_all = slowly  # type: ignore[method-assign]
    async with WorkerPool(CONFIG, manager):
        await batch.dispatch(manager)
        assert sent > 1
        assert await batch.wait(10) == "failed"
        await until(lambda: _ran(2), "it has been told")
    assert sorted(str(each) for each in seen)[:2] == ["breaks", "catch"]


async def _dead(manager: QueueManager, queue: str) -> bool:
    return (await manager.queue(queue)).counts["dead"] == 1


# --- what a reader found -------------------------------------------------------------------------------------------


async def test_schedules_of_code_in_several_shards(manager: QueueManager) -> None:
    scheduler = Scheduler(manager)
    for queue in ("one", "two"):
        scheduler.schedule("0 0 1 1 *").job(Note(what=queue)).name(queue).on_queue(queue)
    async with scheduler:
        assert {info.name for info in await manager.schedules.list()} == {"one", "two"}


async def test_a_group_added_twice_is_expected_once(manager: QueueManager) -> None:
    batch = Batch([manager.dispatch_to(Note(what="a"), "one")])
    await batch.dispatch(manager)
    for _ in range(2):
        inner = Batch([manager.dispatch_to(Note(what="b"), "two")])
        inner.with_id("01900000-0000-7000-8000-000000000002")
        with contextlib.suppress(BatchClosed):
            await manager.batch(batch.id).add(inner)
    async with WorkerPool(CONFIG, manager):
        assert await batch.wait(10) == "completed"
    assert sorted(seen) == ["a", "b"]


async def test_a_refused_step_leaves_its_chain_as_it_was(manager: QueueManager) -> None:
    chain = Chain([manager.dispatch_to(Note(what="first"), "one"), manager.dispatch_to(Note(what="second"), "one")])
    await chain.dispatch(manager)
    (step, *_) = [record.id for record in await manager.inspector.page(State.READY, "one", 0, 1)]
    handle = manager.chain(chain.id, step)
    stranger = "00000000-0000-7000-8000-000000000000"
    with pytest.raises(JobNotFound):
        await handle.append(manager.dispatch_to(Note(what="no"), "two").depends_on(stranger))
    for queue in ("two", "one"):
        await handle.append(manager.dispatch_to(Note(what=f"more in {queue}"), queue))
    async with WorkerPool(CONFIG, manager):
        assert await chain.wait(10) == "completed"
    assert seen == ["first", "second", "more in two", "more in one"]


async def test_one_call_can_not_spread_a_limit(manager: QueueManager) -> None:
    with pytest.raises(InvalidOption, match="the limit"):
        await manager.dispatch_many([manager.dispatch_to(_Capped(), queue) for queue in ("one", "two")])
    assert await manager.size("one") == await manager.size("two") == 0


async def test_an_id_is_one_jobs_in_all_shards(manager: QueueManager) -> None:
    job_id = await manager.dispatch_to(Note(what="a"), "one")
    with pytest.raises(DuplicateJob, match="taken by a"):
        await manager.dispatch_to(Note(what="a"), "two").with_id(job_id)
    assert await manager.dispatch_to(Note(what="a"), "one").with_id(job_id) == job_id
    await manager.clear("one")
