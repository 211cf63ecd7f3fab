"""Workers and the server are killed, stopped and confused while jobs run. What is counted on a second server must agree:
nothing lost, nothing stuck, nothing run twice but what the ledger accounts for.

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

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from rf_jobs.words.config import load_settings
from tests.support.fleet import Server, disturb_workers, harass, seeded, worker_fleet
from tests.support.jobs import QUEUE, Effect
from tests.support.servers import ephemeral_server
from tests.support.waiting import until

JOBS = int(os.environ.get("RF_JOBS_TEST_CHAOS_JOBS", "1500"))
SECONDS = 12.0


@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    seed, dice = seeded()
    with ExitStack() as stack:
        server = Server(stack, tmp_path / "server")
        effects = stack.enter_context(ephemeral_server())
        settings = load_settings(overrides={"jobs.redis_url": server.url, "jobs.completed_keep": 1_000_000}).settings
        fleet = worker_fleet(stack, server.url, effects.url, tmp_path)
        async with QueueManager(settings, retry_for=20) as manager:
            dispatching = asyncio.create_task(dispatch(manager))
            await harass(partial(disturb_workers, dice, fleet, manager, server), fleet, dice, SECONDS, (0.2, 0.8))
            await dispatching

            async def drained() -> bool:
                counts = await manager.counts(QUEUE)
                return counts["completed"] == JOBS

            await until(drained, f"{JOBS} jobs are completed (seed {seed})", 90)
            await judge(manager, effects.url, seed)


async def dispatch(manager: QueueManager) -> None:
    for start in range(0, JOBS, 50):
        await manager.dispatch_many(
            [Effect(number=n, seconds=0.3 if n % 10 == 0 else 0) for n in range(start, start + 50)]
        )
        await asyncio.sleep(SECONDS / (JOBS / 50) * 0.8)


async def judge(manager: QueueManager, effects: str, seed: int) -> None:
    [queue] = await manager.queues()
    events = queue.ledger
    with redis.Redis.from_url(effects) as client:
        runs = [client.lrange(f"x:{n}", 0, -1) for n in range(JOBS)]
    lost = [n for n, tokens in enumerate(runs) if not tokens]
    assert lost == [], f"never ran (seed {seed})"
    assert all(len(set(tokens)) == len(tokens) for tokens in runs), f"one lease ran twice (seed {seed})"
    # A lease that ended without its job being over is the only reason to run again.
    again = events.get("reclaimed", 0) + events.get("released", 0) + events.get("retried", 0)
    assert sum(map(len, runs)) <= JOBS + again, f"runs that nothing accounts for (seed {seed}): {events}"
    assert (events["dispatched"], events["completed"], queue.imbalance) == (JOBS, JOBS, 0)
    assert (await deep_check(manager.store)).problems == []
