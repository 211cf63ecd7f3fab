"""Batches of chains while workers, supervisors and the server are killed: each ends, and calls what it has to call once.

``RF_JOBS_TEST_SEED`` replays a run, ``RF_JOBS_TEST_CHAOS_JOBS`` makes it larger.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis

from rf_jobs import Batch, Chain, QueueManager
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


def batch_of(number: int) -> Batch:
    first = number * CHAINS * STEPS
    chains = [Chain([Effect(number=first + c * STEPS + s) for s in range(STEPS)]) for c in range(CHAINS)]
    batch = Batch(chains).allow_failures().name(f"batch {number}")
    if fails(number):
        batch.add(Steered(how="fail"))
    return (
        batch.then(Effect(number=THEN + number))
        .catch(Effect(number=CATCH + number))
        .finally_(Effect(number=FINALLY + number))
    )


def fails(number: int) -> bool:
    return number % FAILING == FAILING - 1


@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_batches_end_whatever_dies(tmp_path: Path) -> None:
    seed, dice = seeded()
    with ExitStack() as stack:
        server = Server(stack, tmp_path / "server")
        effects = stack.enter_context(ephemeral_server())
        settings = load_settings(overrides={"jobs.redis_url": server.url, "jobs.completed_keep": 1_000_000}).settings
        fleet = worker_fleet(stack, server.url, effects.url, tmp_path)
        async with QueueManager(settings, retry_for=20) as manager:
            batches = [batch_of(number) for number in range(BATCHES)]
            dispatching = asyncio.create_task(dispatch(manager, batches))
            await harass(partial(disturb_workers, dice, fleet, manager, server), fleet, dice, SECONDS, (0.2, 0.8))
            await dispatching

            async def over() -> bool:
                counts = await manager.counts(QUEUE)
                return not any(counts[state] for state in ("ready", "scheduled", "blocked", "running", "parked"))

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
    [queue] = await manager.queues()
    ledger = queue.ledger
    assert (ledger["dispatched"], ledger["completed"], ledger.get("dead", 0), queue.imbalance) == (
        len(numbers) + failing, len(numbers), failing, 0,
    ), f"seed {seed}"  # fmt: skip
    assert (await deep_check(manager.store)).problems == []
