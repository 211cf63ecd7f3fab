"""Batches of chains while workers, supervisors and the server are killed: each ends, and calls what it has to call once. In one
shard, and with each step of a chain in another.

``RF_JOBS_TEST_SEED`` replays a run, ``RF_JOBS_TEST_CHAOS_JOBS`` makes it larger.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis

from rf_jobs import Batch, Chain, Pending, QueueManager
from rf_jobs.core.doctor import deep_check
from rf_jobs.words.config import load_settings
from tests.support.fleet import Server, disturb_workers, harass, seeded, worker_fleet
from tests.support.jobs import QUEUE, Effect, Steered
from tests.support.servers import ephemeral_server
from tests.support.waiting import until

CHAINS = 15
STEPS = 3
BATCHES = max(2, int(os.environ.get("RF_JOBS_TEST_CHAOS_JOBS", "1500")) // (2 * CHAINS * STEPS))
SECONDS = 12.0
THEN, FINALLY, CATCH = 1_000_000, 2_000_000, 3_000_000
FAILING = 4
"""Every so many batches, one has a member that fails for good."""


def batch_of(number: int, manager: QueueManager, queues: Sequence[str]) -> Batch:
    first = number * CHAINS * STEPS
    turn = itertools.cycle(queues)

    def effect(which: int) -> Pending[Any]:
        return manager.dispatch_to(Effect(number=which), next(turn))

    chains = [Chain([effect(first + c * STEPS + s) for s in range(STEPS)]) for c in range(CHAINS)]
    batch = Batch(chains).allow_failures().name(f"batch {number}")
    if fails(number):
        batch.add(manager.dispatch_to(Steered(how="fail"), next(turn)))
    return batch.then(effect(THEN + number)).catch(effect(CATCH + number)).finally_(effect(FINALLY + number))


def fails(number: int) -> bool:
    return number % FAILING == FAILING - 1


@pytest.mark.chaos
@pytest.mark.timeout(180)
@pytest.mark.parametrize("queues", [(QUEUE,), (QUEUE, "second", "third", "fourth")], ids=["one-shard", "four-shards"])
async def test_batches_end_whatever_dies(tmp_path: Path, queues: tuple[str, ...]) -> None:
    seed, dice = seeded()
    with ExitStack() as stack:
        server = Server(stack, tmp_path / "server")
        effects = stack.enter_context(ephemeral_server())
        shards = {queue: shard for shard, queue in enumerate(queues)}
        overrides = {"jobs.shards": len(shards), "jobs.queue_shards": shards, "jobs.completed_keep": 1_000_000}
        settings = load_settings(overrides={"jobs.redis_url": server.url, **overrides}).settings
        fleet = worker_fleet(stack, server.url, effects.url, tmp_path, shards)
        async with QueueManager(settings, retry_for=20) as manager:
            batches = [batch_of(number, manager, queues) for number in range(BATCHES)]
            dispatching = asyncio.create_task(dispatch(manager, batches))
            await harass(partial(disturb_workers, dice, fleet, manager, server), fleet, dice, SECONDS, (0.2, 0.8))
            await dispatching

            async def over() -> bool:
                all_counts = [await manager.counts(queue) for queue in queues]
                waiting = ("ready", "scheduled", "blocked", "running", "parked")
                return not any(counts[state] for counts in all_counts for state in waiting)

            await until(over, f"all is over (seed {seed})", 90)
            await judge(manager, batches, effects.url, seed)


async def dispatch(manager: QueueManager, batches: list[Batch]) -> None:
    for batch in batches:
        await batch.dispatch(manager)
        await asyncio.sleep(SECONDS / len(batches) * 0.8)


async def judge(manager: QueueManager, batches: list[Batch], effects: str, seed: int) -> None:
    await manager.lifecycle.settle()
    for number, batch in enumerate(batches):
        record = await manager.batch(batch.id).record()
        state, second = ("failed", "catch") if fails(number) else ("completed", "then")
        assert (record.state, set(record.fired)) == (state, {second, "finally"}), f"batch {number} (seed {seed})"
        members = CHAINS + fails(number)
        assert (record.progress.total, record.progress.pending, record.progress.failed) == (
            members,
            0,
            int(fails(number)),
        )
    numbers = list(range(BATCHES * CHAINS * STEPS))
    for number in range(BATCHES):
        numbers += [FINALLY + number, (CATCH if fails(number) else THEN) + number]
    with redis.Redis.from_url(effects) as client:
        seen = {int(key.split(b":")[1]) for key in client.scan_iter("x:*")}
    assert seen == set(numbers), f"what ran is not what had to (seed {seed})"
    failing = sum(map(fails, range(BATCHES)))
    queues = await manager.queues()
    total = {word: sum(queue.ledger.get(word, 0) for queue in queues) for word in ("dispatched", "completed", "dead")}
    assert (total["dispatched"], total["completed"], total["dead"], sum(queue.imbalance for queue in queues)) == (
        len(numbers) + failing, len(numbers), failing, 0,
    ), f"seed {seed}"  # fmt: skip
    assert (await deep_check(manager.store)).problems == []
