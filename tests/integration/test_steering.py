"""Moving waiting jobs, and explaining why they wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from rf_jobs import Batch, Explanation, InvalidOption, JobNotFound, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model.events import Event, JobReprioritized, JobRescheduled
from rf_jobs.words.ids import new_id
from rf_jobs.words.states import Priority
from tests.support.flow_jobs import QUEUE, Breaks, Limited, Note, Rated, Waits, gate, mended, seen
from tests.support.waiting import until

CONFIG = WorkerConfig(queues=[QUEUE], sleep=5, workers=1, max_concurrent_jobs=2)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    gate.clear()
    mended.clear()
    async with QueueManager(redis_url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0] * len(await running.queues())


@pytest.fixture
def heard(manager: QueueManager) -> list[Event]:
    events: list[Event] = []
    for kind in (JobReprioritized, JobRescheduled):
        manager.bus.subscribe(kind, events.append)
    return events


async def test_reprioritize(manager: QueueManager, heard: list[Event]) -> None:
    first, second = await manager.dispatch_many([Note(what="1"), Note(what="2")])
    delayed = await manager.dispatch(Note(what="3")).delay(100)
    assert await manager.reprioritize(second, Priority.CRITICAL)
    assert await manager.reprioritize(delayed, "high")
    assert await manager.reschedule(delayed)
    assert [e.priority for e in heard if isinstance(e, JobReprioritized)] == [3, 2]
    async with WorkerPool(CONFIG.max_concurrent_jobs(1), manager):
        await manager.wait(first, 10)
    assert seen == ["2", "3", "1"]
    assert (await manager.job(second)).priority == 3
    assert not await manager.reprioritize(first, "low"), "it is over"
    ledger = (await manager.queue(QUEUE)).ledger
    assert (ledger["reprioritized"], ledger["rescheduled"]) == (2, 1)


async def test_reschedule(manager: QueueManager, heard: list[Event]) -> None:
    job = await manager.dispatch(Note(what="x"))
    assert await manager.reschedule(job, delay=3600)
    record = await manager.job(job)
    assert record.state == "scheduled"
    assert record.due_at is not None
    assert 3500 < (record.due_at - datetime.now(UTC)).total_seconds() <= 3600
    assert await manager.reschedule(job, at=datetime.now(UTC) + timedelta(hours=5))
    assert await manager.reschedule(job)
    assert (await manager.job(job)).state == "ready"
    delays = [round(e.delay, -2) for e in heard if isinstance(e, JobRescheduled)]
    assert delays == [3600, 18_000, 0]
    parent = await manager.dispatch(Note(what="parent")).delay(3600)
    child = await manager.dispatch(Note(what="child")).depends_on(parent)
    assert await manager.reschedule(child, delay=3600)
    assert (await manager.job(child)).state == "blocked"
    await manager.reschedule(parent)
    async with WorkerPool(CONFIG, manager):
        await manager.wait(parent, 10)
        await until(lambda: _in(manager, child, "scheduled"), "its time is still to come")
    with pytest.raises(InvalidOption, match="give one"):
        await manager.reschedule(job, delay=1, at=datetime.now(UTC))
    with pytest.raises(JobNotFound):
        await manager.reschedule(new_id())


async def _in(manager: QueueManager, job: UUID, state: str) -> bool:
    return (await manager.job(job)).state == state


# --- explain -------------------------------------------------------------------------------------------------------


def codes(found: Explanation) -> list[str]:
    return [reason.code for reason in found.reasons]


def said(found: Explanation) -> str:
    return "\n".join(reason.message for reason in found.reasons)


async def test_why_a_ready_job_waits(manager: QueueManager) -> None:
    jobs = await manager.dispatch_many([Note(what=str(n)) for n in range(3)])
    found = await manager.explain(jobs[2])
    assert (found.state, codes(found)) == ("ready", ["no_worker", "position"])
    assert "rf-jobs worker --queues flow" in said(found)
    assert "2 jobs stand before it" in said(found)
    assert codes(await manager.explain(jobs[0])) == ["no_worker", "next"]
    await manager.pause(QUEUE)
    await manager.pause_class(Note, for_=60)
    assert codes(await manager.explain(jobs[2])) == ["paused", "paused", "no_worker", "position"]
    assert "for 59" in said(await manager.explain(jobs[2])) or "for 60" in said(await manager.explain(jobs[2]))


async def test_why_a_scheduled_job_waits(manager: QueueManager) -> None:
    job = await manager.dispatch(Note(what="x")).delay(120)
    found = await manager.explain(job)
    assert codes(found) == ["scheduled", "no_worker"]
    assert "in 1" in found.reasons[0].message
    assert found.reasons[0].until is not None


async def test_why_a_blocked_job_waits(manager: QueueManager) -> None:
    parents = await manager.dispatch_many([Note(what=str(n)) for n in range(12)])
    batch = Batch([manager.dispatch(Note(what="x")).delay(99)])
    await batch.dispatch(manager)
    child = await manager.dispatch(Note(what="child")).depends_on(*parents)
    found = await manager.explain(child)
    assert codes(found)[0] == "dependency"
    assert "it waits for 12 to complete" in said(found)
    assert "and 2 more" in said(found)
    behind = await manager.dispatch(Note(what="child")).depends_on(batch)
    assert f"batch {batch.id} (running)" in said(await manager.explain(behind))


async def test_why_a_limited_job_waits(manager: QueueManager) -> None:
    jobs = await manager.dispatch_many([Limited(tenant="a", what=str(n)) for n in range(3)])
    rated = await manager.dispatch_many([Rated(number=n) for n in range(4)])
    async with WorkerPool(CONFIG.max_concurrent_jobs(20), manager):
        await until(lambda: _in(manager, jobs[2], "blocked"), "it is held")
        found = await manager.explain(jobs[2])
        assert codes(found) == ["limit"]
        assert set(found.reasons[0].blockers) == {str(jobs[0]), str(jobs[1])}
        assert "its worker is alive" in said(found)
        assert "for key a" in said(found)
        running = await manager.explain(jobs[0])
        assert codes(running) == ["running"]
        await manager.limits.set("tests.support.flow_jobs:Rated:rate", rate=None, concurrency=1)
        gate.set()
        await manager.wait(jobs[2], 10)
        await manager.wait(rated[3], 10)


async def test_why_a_job_that_is_over_does_not_run(manager: QueueManager) -> None:
    job = await manager.dispatch(Breaks())
    async with WorkerPool(CONFIG, manager):
        await until(lambda: _in(manager, job, "dead"), "it died")
    found = await manager.explain(job)
    assert codes(found) == ["over"]
    assert "replay it" in said(found)


async def test_why_nobody_runs_it_where_workers_are(manager: QueueManager) -> None:
    from rf_jobs.model.jobclass import Registry

    old = Registry()
    old.add(Waits.__job_class__)
    job = await manager.dispatch(Note(what="x"))
    async with WorkerPool(CONFIG, manager, registry=old) as pool:
        await until(lambda: _in(manager, job, "parked"), "it is parked")

        async def listed() -> bool:
            return any(w.id == pool.id and w.queues for w in await manager.workers())

        await until(listed, "the worker has said what it can run")
        found = await manager.explain(job)
        assert codes(found) == ["parked", "unknown_class"]
        waiting = await manager.dispatch_many([Waits(), Waits(), Waits()])
        await until(lambda: _count(2), "both slots are taken")
        await until(lambda: _busy(manager), "it has said so")
        assert codes(await manager.explain(waiting[2])) == ["busy", "next"]
        gate.set()
    with pytest.raises(JobNotFound):
        await manager.explain(new_id())


async def _count(number: int) -> bool:
    return len(seen) >= number


async def _busy(manager: QueueManager) -> bool:
    return any(worker.busy >= worker.slots for worker in await manager.workers())


async def test_a_lost_lease(manager: QueueManager) -> None:
    job = await manager.dispatch(Note(what="x"))
    await manager.store.run(manager.store.commands.fetch("w", 1, 1, 1, [QUEUE]))
    await until(lambda: _lost(manager, job), "its lease ran out")
    found = await manager.explain(job)
    assert codes(found) == ["lease_lost", "running"]


async def _lost(manager: QueueManager, job: UUID) -> bool:
    return codes(await manager.explain(job))[0] == "lease_lost"
