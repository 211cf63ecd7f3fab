"""Schedulers are killed, stopped and cut off under fast schedules, and the server with them. Each tick's job must be there, once.

``RF_JOBS_TEST_SEED`` replays a run.
"""

from __future__ import annotations

import asyncio
import random
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from rf_jobs.words.recurrence import tick_id
from tests.support.fleet import Fleet, Server, disturb_store, harass, seeded
from tests.support.processes import rf_jobs
from tests.support.scheduled import QUEUE, STEPS
from tests.support.waiting import until

SECONDS = 10.0
SCHEDULERS = 3


@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_each_tick_is_dispatched_once_whatever_dies(tmp_path: Path) -> None:
    seed, dice = seeded()
    with ExitStack() as stack:
        server = Server(stack, tmp_path / "server")
        command = rf_jobs("scheduler", "tests.support.scheduled", "--redis-url", server.url)
        fleet = Fleet(stack, tmp_path, command, {}, SCHEDULERS)
        async with QueueManager(server.url, retry_for=20) as manager:

            async def ticking() -> bool:
                return (await manager.size(QUEUE)) > 10

            await until(ticking, "the first ticks", 60)
            await harass(partial(disturb, dice, fleet, manager, server), fleet, dice, SECONDS, (0.1, 0.6))
            await judge(manager, seed)


async def disturb(dice: random.Random, fleet: Fleet, manager: QueueManager, server: Server) -> None:
    """Do one evil thing."""
    what = dice.choice(["kill", "kill", "kill", "freeze", "scripts", "clients", "server"])
    victim = dice.choice(fleet.running)
    if what == "kill":
        victim.kill()
        victim.wait()
    elif what == "freeze":
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.5)
        victim.send_signal(signal.SIGCONT)
    else:
        await disturb_store(what, manager, server)


async def judge(manager: QueueManager, seed: int) -> None:
    """Once the schedules have caught up: no tick is left out, and there is no job that is none's."""

    async def on_time() -> bool:
        infos = [await manager.schedules.get(name) for name in STEPS]
        now = await manager.store.run(manager.store.commands.time())
        return all(info.next_run and info.next_run.timestamp() * 1000 > now - 50 for info in infos)

    await until(on_time, f"the schedules have caught up (seed {seed})", 60)
    for name in STEPS:
        await manager.schedules.pause(name)
    jobs = 0
    for name, step in STEPS.items():
        info = await manager.schedules.get(name)
        assert info.created_at is not None
        assert info.last_tick is not None
        first, last = round(info.created_at.timestamp() * 1000), round(info.last_tick.timestamp() * 1000)
        ticks = [tick for tick in range(first // step * step + step, last + 1, step) if tick > first]
        exist = await manager.store.run_many(
            [manager.store.commands.exists("job", str(tick_id(name, tick))) for tick in ticks]
        )
        # A scheduler works out the first tick before its schedule is in: on a busy machine that may have been due by then.
        before = [tick for tick in range(first // step * step, first - 5000, -step) if tick <= first]
        early = await manager.store.run_many(
            [manager.store.commands.exists("job", str(tick_id(name, tick))) for tick in before]
        )
        lost = [tick for tick, there in zip(ticks, exist, strict=True) if not there]
        assert lost == [], f"ticks of {name} were left out (seed {seed})"
        assert (info.fired, info.missed) == (len(ticks) + sum(early), 0), f"{name} (seed {seed})"
        jobs += len(ticks) + sum(early)
    queue = await manager.queue(QUEUE)
    assert (queue.counts["ready"], queue.ledger["dispatched"]) == (jobs, jobs), f"seed {seed}"
    assert queue.ledger.get("deduplicated", 0) == 0
    assert (await deep_check(manager.store)).problems == []
