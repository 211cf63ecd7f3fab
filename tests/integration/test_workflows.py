"""Chains, batches and dependencies, with real workers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from rf_jobs import (
    Batch,
    BatchClosed,
    Chain,
    InvalidOption,
    JobNotFound,
    Queue,
    QueueManager,
    WorkerConfig,
    WorkerPool,
    configure,
)
from rf_jobs.client.workflow.callbacks import BatchCallback
from rf_jobs.model.events import BatchFinished, Event, JobBlocked, JobDispatched, JobRestored, JobUnblocked
from rf_jobs.model.jobclass import Registry
from rf_jobs.store import batch_calls
from rf_jobs.store.batch_calls import NewBatch
from rf_jobs.store.calls import Left
from rf_jobs.words.errors import BackendError, RateLimited
from rf_jobs.words.ids import new_id
from rf_jobs.words.states import State
from tests.support.flow_jobs import (
    QUEUE,
    Adds,
    AppendsTwo,
    Breaks,
    Extends,
    Note,
    Silent,
    Tells,
    TellsFromProcess,
    Waits,
    gate,
    mended,
    on_done,
    on_failed,
    seen,
)
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE, "default"], sleep=5)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    gate.clear()
    mended.clear()
    async with QueueManager(redis_url) as running:
        yield running
        for queue in await running.queues():
            assert queue.imbalance == 0, queue
            assert queue.counts["blocked"] == 0, "somebody waits for ever"


@pytest.fixture
async def pool(manager: QueueManager) -> AsyncIterator[WorkerPool]:
    async with WorkerPool(CONFIG, manager) as running:
        yield running
        gate.set()


@pytest.fixture
def events(manager: QueueManager) -> list[Event]:
    heard: list[Event] = []
    for kind in (BatchFinished, JobBlocked, JobUnblocked, JobRestored, JobDispatched):
        manager.bus.subscribe(kind, heard.append)
    return heard


async def ran(*what: Any) -> None:
    """Wait until exactly this has run, in any order."""

    async def look() -> bool:
        return len(seen) >= len(what)

    await until(look, f"{len(what)} things ran")
    assert sorted(map(str, seen)) == sorted(map(str, what))


# --- dependencies --------------------------------------------------------------------------------------------------


async def test_a_job_waits_for_all_its_parents(manager: QueueManager, events: list[Event]) -> None:
    first, second = await manager.dispatch_many([Note(what="a"), Note(what="b")])
    child = await manager.dispatch(Tells()).depends_on(first, second)
    assert (await manager.job(child)).state == "blocked"
    async with WorkerPool(CONFIG, manager):
        assert sorted(await manager.wait(child, 10)) == ["a", "b"]
    assert [(type(e).__name__, e.job_id) for e in events if isinstance(e, (JobBlocked, JobUnblocked))] == [
        ("JobBlocked", str(child)),
        ("JobUnblocked", str(child)),
    ]
    ledger = (await manager.queue(QUEUE)).ledger
    assert (ledger["blocked"], ledger["unblocked"], ledger["dispatched"]) == (1, 1, 3)


async def test_a_parent_that_is_over_counts_as_such(manager: QueueManager, pool: WorkerPool) -> None:
    done = await manager.dispatch(Note(what="early"))
    await manager.wait(done, 10)
    assert await manager.dispatch(Tells()).depends_on(done).result(10) == "early"
    dead = await manager.dispatch(Breaks())
    await until(lambda: _is(manager, dead, "dead"), "it died")
    for policy, state in (("cancel", "cancelled"), ("dead", "dead"), ("run", "completed")):
        child = await manager.dispatch(Note(what=policy)).depends_on(dead, on_failure=policy)  # type: ignore[arg-type]
        await until(partial(_is, manager, child, state), f"{policy} makes it {state}")


async def _is(manager: QueueManager, job: UUID, state: str) -> bool:
    return (await manager.job(job)).state == state


@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("dead", "dead"), ("run", "completed")])
async def test_a_failed_parent(manager: QueueManager, policy: Any, state: str) -> None:
    parent = await manager.dispatch(Breaks())
    child = await manager.dispatch(Note(what="child")).depends_on(parent, on_failure=policy)
    grandchild = await manager.dispatch(Note(what="grandchild")).depends_on(child)
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _is(manager, child, state), "the child ended")
        expected = "completed" if policy == "run" else "cancelled"
        await until(lambda: _is(manager, grandchild, expected), "the grandchild ended")
    record = await manager.job(child)
    if policy != "run":
        assert str(parent) in record.reason or str(parent) in str(record.errors)


async def test_a_delayed_job_waits_for_both(manager: QueueManager, pool: WorkerPool) -> None:
    parent = await manager.dispatch(Note(what="parent"))
    child = await manager.dispatch(Note(what="child")).depends_on(parent).delay(3600)
    await until(lambda: _is(manager, child, "scheduled"), "its parent is done, its time is not")
    assert await manager.reschedule(child)
    await manager.wait(child, 10)


async def test_parents_that_nobody_knows(manager: QueueManager) -> None:
    stranger = new_id()
    with pytest.raises(JobNotFound, match=str(stranger)):
        await manager.dispatch(Note(what="x")).depends_on(stranger)
    with pytest.raises(InvalidOption, match="on_failure"):
        manager.dispatch(Note(what="x")).depends_on(stranger, on_failure="explode")  # type: ignore[arg-type]
    own = new_id()
    with pytest.raises(JobNotFound):
        await manager.dispatch(Note(what="x")).with_id(own).depends_on(own)
    assert await manager.queues() == []


async def test_a_replayed_parent_gets_its_dependents_back(manager: QueueManager, events: list[Event]) -> None:
    parent = await manager.dispatch(Breaks())
    child = await manager.dispatch(Note(what="child")).depends_on(parent)
    last = await manager.dispatch(Note(what="last")).depends_on(child, on_failure="dead")
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _is(manager, last, "dead"), "all have ended")
        mended.set()
        assert await manager.retry_failed(parent)
        await manager.wait(last, 10)
    assert seen == ["breaks", "breaks", "child", "last"]
    assert {e.job_id for e in events if isinstance(e, JobRestored)} == {str(child), str(last)}


# --- chains --------------------------------------------------------------------------------------------------------


async def test_a_chain_passes_results_on(manager: QueueManager, pool: WorkerPool, events: list[Event]) -> None:
    chain = Chain().name("letters").then(Note(what="a")).then(Tells()).then(Silent()).then(Tells()).finally_(on_done)
    assert await chain.dispatch(manager) == chain.id
    assert await chain.wait(10) == "completed"
    await ran("a", ("previous", "a"), "silent", ("previous", None), ("on_done", 4))
    record = await manager.batch(chain.id).record()
    assert (record.kind, record.name, record.state, record.fired) == ("chain", "letters", "completed", ("finally",))
    [finished] = [e for e in events if isinstance(e, BatchFinished)]
    assert (finished.batch, finished.kind, finished.state, finished.failed) == (str(chain.id), "chain", "completed", 0)


async def test_a_chain_stops_at_the_first_failure(manager: QueueManager, pool: WorkerPool) -> None:
    chain = Chain([Note(what="a"), Breaks(), Note(what="never")]).catch(on_failed).finally_(Note(what="finally"))
    await chain.dispatch(manager)
    assert await chain.wait(10) == "failed"
    await ran("a", "breaks", ("on_failed", "ValueError: breaks"), "finally")
    progress = await chain.progress()
    assert (progress.total, progress.processed, progress.failed, progress.pending) == (3, 3, 2, 0)
    mended.set()
    assert await manager.batch(chain.id).retry_failed() == 1
    assert await chain.wait(10) == "completed"
    await ran("a", "breaks", ("on_failed", "ValueError: breaks"), "finally", "breaks", "never")


async def test_steps_are_added_from_inside(manager: QueueManager, pool: WorkerPool) -> None:
    chain = Chain([Extends(), Note(what="second")])
    await chain.dispatch(manager)
    assert await chain.wait(10) == "completed"
    assert seen == ["extends", "inserted", "second", "appended"]


async def test_a_chain_holds_batches_and_chains(manager: QueueManager, pool: WorkerPool) -> None:
    chain = (
        Chain()
        .then(Note(what="first"))
        .then(Batch([Note(what="left"), Note(what="right")]))
        .then(Chain([Note(what="inner 1"), Note(what="inner 2")]))
        .then(Note(what="last"))
    )
    await chain.dispatch(manager)
    assert await chain.wait(10) == "completed"
    assert (seen[0], set(seen[1:3]), seen[3:]) == ("first", {"left", "right"}, ["inner 1", "inner 2", "last"])


async def test_a_failed_batch_ends_its_chain_unless_failures_are_allowed(
    manager: QueueManager, pool: WorkerPool
) -> None:
    strict = Chain([Batch([Breaks(what="x")]), Note(what="never")])
    lenient = Chain([Batch([Breaks(what="y"), Note(what="z")]).allow_failures(), Note(what="after all")])
    await strict.dispatch(manager)
    await lenient.dispatch(manager)
    assert (await strict.wait(10), await lenient.wait(10)) == ("failed", "completed")
    await ran("x", "y", "z", "after all")


# --- batches -------------------------------------------------------------------------------------------------------


async def test_a_batch_calls_then_and_finally_once(manager: QueueManager, pool: WorkerPool) -> None:
    batch = Batch(Note(what=str(n)) for n in range(1200)).name("many").then(Note(what="then")).finally_(on_done)
    batch.catch(on_failed)
    await batch.dispatch(manager)
    assert await batch.wait(30) == "completed"
    await until(lambda: _length(1202), "the callbacks ran")
    assert sorted(map(str, seen)) == sorted([*map(str, range(1200)), "then", "('on_done', 1200)"])
    assert (await batch.progress()).percentage == 100


async def _length(count: int) -> bool:
    return len(seen) >= count


async def test_dispatched_twice_it_is_not_doubled(manager: QueueManager, pool: WorkerPool) -> None:
    batch_id = new_id()
    for _ in range(2):
        batch = Batch([Note(what="once")]).with_id(batch_id).then(Note(what="then"))
        await batch.dispatch(manager)
        assert await batch.wait(10) == "completed"
    await ran("once", "then")


async def test_an_empty_batch_is_done_at_once(manager: QueueManager, pool: WorkerPool) -> None:
    batch = Batch().then(Note(what="then"))
    await batch.dispatch(manager)
    assert await batch.wait(10) == "completed"
    await ran("then")


async def test_a_failure_cancels_what_waits(manager: QueueManager) -> None:
    # One slot: the others wait when the first fails.
    batch = Batch([Breaks(), *(Note(what=str(n)) for n in range(5))]).catch(on_failed).finally_(Note(what="finally"))
    batch.then(Note(what="then"))
    await batch.dispatch(manager)
    async with WorkerPool(WorkerConfig(queues=[QUEUE, "default"], workers=1, max_concurrent_jobs=1), manager):
        assert await batch.wait(10) == "failed"
        await until(lambda: _length(3), "the callbacks ran")
    assert ("on_failed", "ValueError: breaks") in seen
    assert "finally" in seen
    assert "then" not in seen
    progress = await batch.progress()
    assert (progress.pending, progress.total) == (0, 6)


async def test_allow_failures_lets_the_others_run(manager: QueueManager, pool: WorkerPool) -> None:
    batch = Batch([Breaks(), Note(what="a"), Note(what="b")]).allow_failures().then(Note(what="then")).finally_(on_done)
    await batch.dispatch(manager)
    assert await batch.wait(10) == "failed"
    await ran("breaks", "a", "b", ("on_done", 3))
    [failed] = await manager.batch(batch.id).failed_jobs()
    assert failed.job_class.endswith("Breaks")
    mended.set()
    assert await manager.batch(batch.id).retry_failed() == 1
    assert await batch.wait(10) == "completed"
    await ran("breaks", "a", "b", ("on_done", 3), "breaks", "then")


async def test_more_jobs_from_inside(manager: QueueManager, pool: WorkerPool) -> None:
    batch = Batch([Adds(more=3)]).then(on_done)
    await batch.dispatch(manager)
    assert await batch.wait(10) == "completed"
    await ran("more 0", "more 1", "more 2", ("on_done", 4))
    with pytest.raises(BatchClosed, match="completed"):
        await manager.batch(batch.id).add(Note(what="late"))
    with pytest.raises(JobNotFound):
        await manager.batch(new_id()).progress()


async def test_cancel(manager: QueueManager, pool: WorkerPool) -> None:
    batch = Batch([Waits(), Note(what="later")]).finally_(Note(what="finally")).then(Note(what="then")).catch(on_failed)
    batch.members[1] = manager.dispatch(Note(what="later")).delay(3600)
    await batch.dispatch(manager)
    await until(lambda: _length(1), "it runs")
    assert await batch.cancel("no longer wanted")
    assert await batch.wait(10) == "cancelled"
    await ran("waits", "finally")
    assert not await batch.cancel()
    with pytest.raises(BatchClosed):
        await manager.batch(batch.id).add(Note(what="late"))


async def test_batches_in_batches(manager: QueueManager, pool: WorkerPool) -> None:
    inner = Batch([Note(what="a"), Note(what="b")]).then(Note(what="inner then"))
    outer = Batch([inner, Chain([Note(what="c"), Note(what="d")]), Note(what="e")]).then(on_done)
    await outer.dispatch(manager)
    assert await outer.wait(10) == "completed"
    await ran("a", "b", "c", "d", "e", "inner then", ("on_done", 3))
    listed = await manager.batches()
    assert {record.outer for record in listed} == {None, outer.id}


async def test_an_inner_failure_fails_the_outer_batch(manager: QueueManager, pool: WorkerPool) -> None:
    outer = Batch([Chain([Breaks(), Note(what="never")])]).catch(on_failed)
    await outer.dispatch(manager)
    assert await outer.wait(10) == "failed"
    records = await manager.batch(outer.id).failed_jobs()
    assert sorted(record.state for record in records) == ["cancelled", "dead"]
    mended.set()
    assert await manager.batch(outer.id).retry_failed() == 1
    assert await outer.wait(10) == "completed"


async def test_through_the_default_manager(redis_url: str, manager: QueueManager, pool: WorkerPool) -> None:
    configure(manager)
    try:
        await Batch([Queue.dispatch(Note(what="x")).tags("t")]).then(Note(what="y")).dispatch()
        await ran("x", "y")
    finally:
        configure(None)


# --- bad input -----------------------------------------------------------------------------------------------------


async def test_callbacks_that_cannot_cross_to_another_process() -> None:
    async def closure(batch: Any) -> None: ...

    def plain(batch: Any) -> None: ...

    for callback in (closure, lambda batch: None, plain, 7):
        with pytest.raises(InvalidOption, match="callback"):
            Batch([Note(what="x")]).then(callback)  # type: ignore[arg-type]


async def test_groups_that_cannot_be(manager: QueueManager) -> None:
    with pytest.raises(InvalidOption, match="no members"):
        await Chain().dispatch(manager)
    with pytest.raises(InvalidOption, match="no members"):
        await Batch([Batch()]).dispatch(manager)
    with pytest.raises(InvalidOption, match="member"):
        Batch([3])  # type: ignore[list-item]
    loop = Batch([Note(what="x")])
    loop.add(loop)
    with pytest.raises(InvalidOption, match="inside itself"):
        await loop.dispatch(manager)
    with pytest.raises(InvalidOption, match="unique"):
        await Chain([manager.dispatch(Note(what="x")).unique_for(60)]).dispatch(manager)
    with pytest.raises(InvalidOption, match="delayed"):
        await Batch([Note(what="x")]).then(manager.dispatch(Note(what="y")).delay(5)).dispatch(manager)
    assert await manager.batches() == []
    assert await manager.queues() == []


async def test_a_callback_whose_module_the_worker_lacks(manager: QueueManager, pool: WorkerPool) -> None:
    callback = BatchCallback(function="no.such.module:f", batch=new_id(), event="then")
    job = await manager.dispatch(callback).max_attempts(1)
    await until(lambda: _is(manager, job, "dead"), "it was buried")
    assert "import module no.such.module" in (await manager.job(job)).errors[0].message


async def test_a_chain_whose_middle_class_is_gone_waits_for_it(manager: QueueManager) -> None:
    old = Registry()
    old.add(Note.__job_class__)
    chain = Chain([Note(what="a"), Silent(), Note(what="b")])
    async with WorkerPool(CONFIG, manager, registry=old):
        await chain.dispatch(manager)

        async def parked() -> bool:
            return (await manager.counts(QUEUE))["parked"] == 1

        await until(parked, "it is parked")
        assert (seen, (await manager.counts(QUEUE))["blocked"]) == (["a"], 1)
    async with WorkerPool(CONFIG.lease(3), manager):
        assert await chain.wait(20) == "completed"
    assert seen == ["a", "silent", "b"]


# --- what a reading found -------------------------------------------------------------------------------------------


async def test_a_step_in_a_process_gets_what_the_one_before_it_returned(
    manager: QueueManager, pool: WorkerPool
) -> None:
    first = await manager.dispatch(Note(what="a"))
    assert await manager.dispatch(TellsFromProcess()).depends_on(first).result(30) == ["a", ["a"]]


async def test_steps_that_are_appended_at_once_run_one_after_the_other(manager: QueueManager, pool: WorkerPool) -> None:
    chain = Chain([AppendsTwo()])
    await chain.dispatch(manager)
    await until(lambda: _length(1), "the first of them runs")
    assert (await manager.counts(QUEUE))["blocked"] == 1
    gate.set()
    assert await chain.wait(10) == "completed"
    assert sorted(seen) == ["first", "second"]


async def test_consequences_that_cannot_be_settled_now_do_not_undo_what_was_announced(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    manager.bus.subscribe(JobDispatched, told.append)

    async def broken(rounds: int = 1) -> None:
        raise BackendError("the server went away")

    monkeypatch.setattr(manager.lifecycle, "settle", broken)
    real = manager.store.run

    async def with_work_left(call: Any, **options: Any) -> Any:
        reply = await real(call, **options)
        return (reply[0], reply[1], Left(1)) if call.script == "enqueue" else reply

    monkeypatch.setattr(manager.store, "run", with_work_left)
    await manager.dispatch(Note(what="x"))
    assert len(told) == 1
    assert await manager.size(QUEUE) == 1
    monkeypatch.undo()
    await manager.clear(QUEUE)


async def test_a_batch_that_was_abandoned_is_not_dispatched_again_in_silence(manager: QueueManager) -> None:
    batch = Batch([Note(what="x")])
    store = manager.store
    opened = NewBatch(str(batch.id), "", {"kind": "batch", "keep": "60000"})
    await store.run(batch_calls.open_batches([opened]))
    await store.client.zadd("{rf}:batches:unsealed", {str(batch.id): 1})  # a quarter of an hour has passed
    await manager.lifecycle.settle()
    assert (await manager.batch(batch.id).record()).abandoned
    with pytest.raises(BatchClosed, match="abandoned"):
        await batch.dispatch(manager)


async def test_a_job_that_is_gone_does_not_wait_behind_an_inserted_step(manager: QueueManager) -> None:
    chain = Chain([Extends(), Note(what="second")])
    await chain.dispatch(manager)
    [first] = await manager.inspector.ids(State.READY, QUEUE, 0, 10)
    gone = await manager.dispatch(Note(what="gone")).depends_on(first)
    await manager.cancel(gone)
    await manager.store.client.delete(f"{{rf}}:job:{gone}", f"{{rf}}:meta:{gone}", f"{{rf}}:parents:{gone}")
    async with WorkerPool(CONFIG, manager):
        assert await chain.wait(10) == "completed"
    assert not await manager.store.client.exists(f"{{rf}}:parents:{gone}")


async def test_one_error_names_what_was_enqueued(manager: QueueManager) -> None:
    asked = [manager.dispatch(Note(what=str(n))).rate_limit("few", 2, per=60, on_limit="raise") for n in range(4)]
    with pytest.raises(RateLimited, match="of 4 jobs 2 were refused; enqueued were: "):
        await manager.dispatch_many(asked)
    assert await manager.size(QUEUE) == 2


async def test_a_distant_slot_keeps_nobody_from_a_near_one(manager: QueueManager) -> None:
    far = await manager.dispatch(Note(what="far")).rate_limit("one", 1, per=1).delay(3600)
    near = await manager.dispatch(Note(what="near")).rate_limit("one", 1, per=1)
    assert ((await manager.job(far)).state, (await manager.job(near)).state) == ("scheduled", "ready")
