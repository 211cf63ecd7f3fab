"""Schedulers are killed, stopped and cut off under fast schedules, and the server with them. Each tick's job must be there, once.

``RF_JOBS_TEST_SEED`` replays a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.words.recurrence import tick_id
from tests.support.processes import process, rf_jobs
from tests.support.scheduled import QUEUE, STEPS
from tests.support.waiting import until

SECONDS = 10.0
SCHEDULERS = 3


class Fleet:
    """Scheduler commands that are started again when they die."""

    def __init__(self, stack: ExitStack, url: str, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._command = rf_jobs("scheduler", "tests.support.scheduled", "--redis-url", url)
        self._environment = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}
        self.running: list[subprocess.Popen[bytes]] = []

    def refill(self) -> None:
        self.running = [one for one in self.running if one.poll() is None]
        while len(self.running) < SCHEDULERS:
            log = self._folder / f"scheduler-{time.monotonic_ns()}.log"
            self.running.append(self._stack.enter_context(process(*self._command, log=log, env=self._environment)))


@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_each_tick_is_dispatched_once_whatever_dies(tmp_path: Path) -> None:
    seed = int(os.environ.get("RF_JOBS_TEST_SEED", str(random.randrange(10**6))))
    print(f"RF_JOBS_TEST_SEED={seed}")
    dice = random.Random(seed)
    with ExitStack() as stack:
        server = EmbeddedServer.start(tmp_path / "server", die_with_parent=True)
        stack.callback(lambda: server.stop())  # noqa: PLW0108 (whichever runs then)
        fleet = Fleet(stack, server.url, tmp_path)
        fleet.refill()
        async with QueueManager(server.url, retry_for=20) as manager:

            async def ticking() -> bool:
                return (await manager.size(QUEUE)) > 10

            await until(ticking, "the first ticks", 60)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                await asyncio.sleep(dice.uniform(0.1, 0.6))
                server = await disturb(dice, fleet, manager, server, tmp_path)
                fleet.refill()
            await judge(manager, seed)


async def disturb(
    dice: random.Random, fleet: Fleet, manager: QueueManager, server: EmbeddedServer, folder: Path
) -> EmbeddedServer:
    """Do one evil thing; answers with the server that runs then."""
    what = dice.choice(["kill", "kill", "kill", "freeze", "scripts", "clients", "server"])
    victim = dice.choice(fleet.running)
    if what == "kill":
        victim.kill()
        victim.wait()
    elif what == "freeze":
        victim.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.5)
        victim.send_signal(signal.SIGCONT)
    elif what == "scripts":
        await manager.store.client.script_flush()
    elif what == "clients":
        await manager.store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    else:
        server.kill()
        return EmbeddedServer.start(folder / "server", die_with_parent=True)
    return server


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
