"""What is announced when the store does something else than it was asked to: events and ledger must agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from rf_jobs import QueueManager, WorkerConfig, WorkerPool
from rf_jobs.core import transitions
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model import events as ev
from rf_jobs.store.shapes import Ending
from rf_jobs.words.errors import BackendError
from rf_jobs.words.ids import new_id
from tests.support import jobs
from tests.support.jobs import QUEUE


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} == {0}


async def ledger(manager: QueueManager) -> dict[str, int]:
    [queue] = await manager.queues()
    return queue.ledger


@pytest.mark.parametrize("again", ["retry", "release"])
async def test_a_job_that_was_asked_to_stop_is_announced_as_cancelled(manager: QueueManager, again: str) -> None:
    seen: list[ev.Event] = []
    manager.bus.subscribe(ev.AttemptEnded, seen.append)
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    assert await manager.cancel(leased.id)
    await getattr(leased, again)()
    assert [type(event) for event in seen] == [ev.JobDiscarded]
    facts = await ledger(manager)
    assert facts["cancelled"] == 1
    assert not facts.get("retried")
    assert not facts.get("released")


async def test_the_last_crash_is_announced_as_a_death(manager: QueueManager) -> None:
    seen: list[ev.Event] = []
    manager.bus.subscribe(ev.AttemptEnded, seen.append)
    await manager.dispatch(jobs.Add(a=1, b=1))
    store = manager.store
    for crash in (1, 2):
        step = transitions.fetch(store.commands, "w", crash, 1, 60_000, [QUEUE])
        [leased] = (await manager.lifecycle.apply(step)).jobs
        ending = Ending("crash", QUEUE, leased.id, leased.token, 2, "it died", b'"x"')
        event = ev.JobCrashed(leased.id, QUEUE, "Add", 1, "w", 0.0, 0.5, 0.5, "", "it died", "WorkerError", "it died")
        call = store.commands.finish([ending], manager.retention)
        await store.run(call)
        [verdict] = await store.run(call)  # sent again, as after a lost reply, it is the same
        seen += transitions.finish(store.commands, [AttemptEnd(ending, event)], manager.retention).announce([verdict])
    assert [type(event) for event in seen] == [ev.JobCrashed, ev.JobDied]
    died = seen[1]
    assert isinstance(died, ev.JobDied)
    assert (died.reason, died.message, died.duration) == ("lost", "it died", 0.5)
    assert (await ledger(manager))["dead"] == 1


async def test_a_reclaimed_job_that_was_asked_to_stop_says_so(manager: QueueManager) -> None:
    seen: list[ev.JobReclaimed] = []
    manager.bus.subscribe(ev.JobReclaimed, seen.append)
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1, lease=timedelta(milliseconds=1))
    assert await manager.cancel(leased.id)
    call = transitions.reclaim(manager.store.commands, 10, 3, manager.retention, [QUEUE])
    while not seen:
        await manager.lifecycle.apply(call)
    assert [event.state for event in seen] == ["cancelled"]


SPOILED: dict[str, list[tuple[str, ...]]] = {
    "no hash": [("DEL", "meta"), ("SET", "meta", "junk")],
    "junk numbers": [("HSET", "meta", "epoch", "abc", "attempt", "junk", "crashes", "many", "score", "x y")],
    "junk bytes": [("HSET", "meta", "epoch", "1", "previous", "\udcff a", "first", "1 2", "exp", "soon")],
}


@pytest.mark.parametrize("how", SPOILED)
async def test_a_spoiled_meta_costs_no_other_job_anything(manager: QueueManager, how: str) -> None:
    ids = await manager.dispatch_many([jobs.Add(a=n, b=1) for n in range(5)])
    key = manager.store.keys.of("meta", str(ids[2]))
    for command, *rest in SPOILED[how]:
        values = [key if value == "meta" else value.encode("utf-8", "surrogateescape") for value in rest]
        await manager.store.client.execute_command(command, *values)
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        assert [await manager.wait(each, 10) for each in ids] == [1, 2, 3, 4, 5]


async def test_a_meta_spoiled_while_its_job_runs_costs_that_job_its_lease(manager: QueueManager) -> None:
    store = manager.store
    await manager.dispatch_many([jobs.Add(a=n, b=1) for n in range(2)])
    spoiled, sound = (await store.run(store.commands.fetch("w", 1, 2, 60_000, [QUEUE]))).jobs
    key = manager.store.keys.of("meta", spoiled.id)
    await store.client.delete(key)
    await store.client.set(key, "junk")
    leases = [(QUEUE, each.id, each.token) for each in (spoiled, sound)]
    assert (await store.run(store.commands.beat("w", 1000, 60_000, {"state": "x"}, leases))).lost == [spoiled.id]
    endings = [Ending("complete", QUEUE, each.id, each.token) for each in (spoiled, sound)]
    assert await store.run(store.commands.finish(endings, manager.retention)) == [0, 1]
    await store.client.zadd(manager.store.keys.of("running", QUEUE), {spoiled.id: 1})
    [taken] = await manager.lifecycle.apply(transitions.reclaim(store.commands, 10, 3, manager.retention, [QUEUE]))
    assert (taken.id, taken.state, taken.crashes) == (spoiled.id, "ready", 1)
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
        assert await manager.wait(spoiled.id, 10) is not None


async def test_a_queue_that_cannot_be_written_to_refuses_the_whole_call(manager: QueueManager) -> None:
    client, keys = manager.store.client, manager.store.keys
    await client.set(keys.of("ready", "broken"), "junk")
    job_id = new_id()
    with pytest.raises(BackendError, match="WRONGTYPE"):
        await manager.dispatch_many(
            [manager.dispatch(jobs.Add(a=1, b=1)), manager.dispatch_to(jobs.Add(a=1, b=1), "broken").with_id(job_id)]
        )
    assert await manager.size(QUEUE) == 0
    await client.delete(keys.of("ready", "broken"))
    await manager.dispatch_to(jobs.Add(a=1, b=1), "broken").with_id(job_id)
    assert await manager.size("broken") == 1


async def test_a_reason_for_cancelling_is_kept_also_for_a_running_job(manager: QueueManager) -> None:
    job_id = await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    assert await manager.cancel(job_id, "the customer left")
    await leased.retry()
    record = await manager.job(job_id)
    assert (record.state, record.reason) == ("cancelled", "the customer left")


async def test_a_crash_report_says_which_attempt_of_which_worker(manager: QueueManager) -> None:
    job_id = await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1, lease=timedelta(milliseconds=1))
    taken: list[ev.JobReclaimed] = []
    manager.bus.subscribe(ev.JobReclaimed, taken.append)
    call = transitions.reclaim(manager.store.commands, 10, 3, manager.retention, [QUEUE])
    while not taken:
        await manager.lifecycle.apply(call)
    [error] = (await manager.job(job_id)).errors
    assert (error.attempt, error.worker) == (1, taken[0].worker)
    assert error.started_at is not None
    assert leased.attempt == 1


async def test_a_job_that_was_parked_forgets_why_once_it_runs(manager: QueueManager) -> None:
    job_id = await manager.dispatch(jobs.Add(a=1, b=1))
    store = manager.store
    [leased] = (await store.run(store.commands.fetch("w", 1, 1, 60_000, [QUEUE]))).jobs
    ending = Ending("park", QUEUE, leased.id, leased.token, 0, "no worker knows it")
    await store.run(store.commands.finish([ending], manager.retention))
    assert (await manager.job(job_id)).reason == "no worker knows it"
    await store.run(store.commands.unpark(QUEUE, [leased.id]))
    assert (await manager.job(job_id)).reason == ""
