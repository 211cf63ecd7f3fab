"""What is announced when the store does something else than it was asked to: events and ledger must agree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from rf_jobs import QueueManager
from rf_jobs.core import transitions
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model import events as ev
from rf_jobs.store.shapes import Ending
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
