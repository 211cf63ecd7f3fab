"""What a dispatch of groups comes to: ids that stay, an order in which parents come first, circles and strangers refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rf_jobs import Batch, BatchClosed, Chain, InvalidOption, JobNotFound, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.client.workflow.plan import plan_of
from rf_jobs.store import batch_calls
from rf_jobs.words.ids import member_id, new_id
from tests.support.flow_jobs import QUEUE, Note, mended, seen


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    mended.clear()
    async with QueueManager(redis_url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0] * len(await running.queues())


def test_members_have_the_same_ids_each_time() -> None:
    batch_id = new_id()

    def ids() -> list[str]:
        batch = Batch([Note(what="a"), Note(what="a"), Note(what="b")]).with_id(batch_id)
        return [str(choices.id) for _, choices in plan_of(batch).jobs]

    assert ids() == ids()
    assert len(set(ids())) == 3
    assert {member_id(batch_id, n).version for n in range(5000)} == {7}
    assert len({member_id(batch_id, n) for n in range(5000)}) == 5000


async def test_a_dispatch_that_died_in_the_middle_is_not_doubled(manager: QueueManager) -> None:
    batch_id = new_id()

    def made() -> Batch:
        return Batch([Note(what=str(n)) for n in range(10)]).with_id(batch_id)

    plan = plan_of(made())
    await manager.store.run(batch_calls.open_batches([manager._groups.opened(planned) for planned in plan.groups]))
    items = [manager.prepare(job, choices) for job, choices in plan.jobs[:6]]
    await manager.placer.send_all(items)  # here its process dies
    await made().dispatch(manager)
    progress = await manager.batch(batch_id).progress()
    assert (progress.total, progress.pending, await manager.size(QUEUE)) == (10, 10, 10)


async def test_the_same_group_may_be_dispatched_again(manager: QueueManager) -> None:
    batch = Batch([manager.dispatch(Note(what="built")).delay(60), Chain().then(Note(what="a")).then(Note(what="b"))])
    await batch.dispatch(manager)
    await batch.dispatch(manager)
    assert (await batch.progress()).total == 2
    assert (await manager.counts(QUEUE))["scheduled"] == 1


async def test_parents_may_stand_behind_their_children(manager: QueueManager) -> None:
    parent_id = new_id()
    batch = Batch(
        [
            manager.dispatch(Note(what="child")).depends_on(parent_id),
            manager.dispatch(Note(what="parent")).with_id(parent_id),
        ]
    )
    async with WorkerPool(WorkerConfig(queues=[QUEUE], sleep=5), manager):
        await batch.dispatch(manager)
        assert await batch.wait(10) == "completed"
    assert seen == ["parent", "child"]


async def test_circles_are_refused(manager: QueueManager) -> None:
    one, two = new_id(), new_id()
    batch = Batch(
        [
            manager.dispatch(Note(what="a")).with_id(one).depends_on(two),
            manager.dispatch(Note(what="b")).with_id(two).depends_on(one),
        ]
    )
    with pytest.raises(InvalidOption, match=f"circle.*{one}"):
        await batch.dispatch(manager)
    inside = Batch()
    inside.add(manager.dispatch(Note(what="a")).depends_on(inside.id))
    with pytest.raises(InvalidOption, match="circle"):
        await inside.dispatch(manager)
    assert await manager.batches() == []
    running = Batch([Note(what="x")])
    await running.dispatch(manager)
    with pytest.raises(InvalidOption, match="circle"):
        await manager.batch(running.id).add(manager.dispatch(Note(what="a")).depends_on(running))


async def test_a_member_waits_for_nobody_unknown(manager: QueueManager) -> None:
    stranger = new_id()
    with pytest.raises(JobNotFound, match=f"{stranger}.*nothing was dispatched"):
        await Batch([Note(what="a"), manager.dispatch(Note(what="b")).depends_on(stranger)]).dispatch(manager)
    assert await manager.batches() == []
    assert await manager.size(QUEUE) == 0


async def test_one_builder_is_one_member(manager: QueueManager) -> None:
    built = manager.dispatch(Note(what="a"))
    with pytest.raises(InvalidOption, match="twice"):
        await Batch([built, built]).dispatch(manager)


async def test_no_group_joins_a_batch_that_is_over(manager: QueueManager) -> None:
    batch = Batch()
    await batch.dispatch(manager)
    with pytest.raises(BatchClosed, match="completed"):
        await manager.batch(batch.id).add(Chain().then(Note(what="late")))
    assert (await batch.progress()).total == 0
