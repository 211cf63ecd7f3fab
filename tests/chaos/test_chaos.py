"""Workers and the server are killed, stopped and confused while jobs run. What is counted on a second server must agree:
nothing lost, nothing stuck, nothing run twice but what the ledger accounts for.

``RF_JOBS_TEST_SEED`` replays a run, ``RF_JOBS_TEST_CHAOS_JOBS`` makes it larger.
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
import redis

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.words.config import load_settings
from tests.support.jobs import QUEUE, Effect
from tests.support.processes import process, rf_jobs
from tests.support.servers import ephemeral_server
from tests.support.waiting import until

JOBS = int(os.environ.get("RF_JOBS_TEST_CHAOS_JOBS", "1500"))
SECONDS = 12.0


class Fleet:
    """Two worker commands that are started again when they die."""

    def __init__(self, stack: ExitStack, url: str, effects: str, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._command = rf_jobs(
            "worker",
            "tests.support.jobs",
            "--queues",
            QUEUE,
            "--redis-url",
            url,
            "--lease-seconds",
            "2",
            "--max-crashes",
            "1000",
        )
        self._environment = {
            "RF_JOBS_TEST_EFFECTS": effects, "RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false",
            "RF_JOBS_COMPLETED_KEEP": "1000000",
        }  # fmt: skip
        self.workers: list[subprocess.Popen[bytes]] = []

    def refill(self) -> None:
        self.workers = [w for w in self.workers if w.poll() is None]
        while len(self.workers) < 2:
            log = self._folder / f"worker-{time.monotonic_ns()}.log"
            self.workers.append(self._stack.enter_context(process(*self._command, log=log, env=self._environment)))


@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_nothing_is_lost_whatever_dies(tmp_path: Path) -> None:
    seed = int(os.environ.get("RF_JOBS_TEST_SEED", str(random.randrange(10**6))))
    print(f"RF_JOBS_TEST_SEED={seed}")
    dice = random.Random(seed)
    with ExitStack() as stack:
        server = EmbeddedServer.start(tmp_path / "server", die_with_parent=True)
        stack.callback(lambda: server.stop())  # noqa: PLW0108 (whichever runs then)
        effects = stack.enter_context(ephemeral_server())
        settings = load_settings(overrides={"jobs.redis_url": server.url, "jobs.completed_keep": 1_000_000}).settings
        fleet = Fleet(stack, server.url, effects.url, tmp_path)
        fleet.refill()
        async with QueueManager(settings, retry_for=20) as manager:
            dispatching = asyncio.create_task(dispatch(manager))
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                await asyncio.sleep(dice.uniform(0.2, 0.8))
                server = await disturb(dice, fleet, manager, server, tmp_path)
                fleet.refill()
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


async def disturb(
    dice: random.Random, fleet: Fleet, manager: QueueManager, server: EmbeddedServer, folder: Path
) -> EmbeddedServer:
    """Do one evil thing; answers with the server that runs then."""
    what = dice.choice(["child", "child", "supervisor", "freeze", "scripts", "clients", "server"])
    children = [w.pid for w in await manager.workers() if w.state == "running"]
    if what == "child" and children:
        _signal(dice.choice(children), signal.SIGKILL)
    elif what == "supervisor":
        dice.choice(fleet.workers).kill()
    elif what == "freeze" and children:
        frozen = dice.choice(children)
        _signal(frozen, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        _signal(frozen, signal.SIGCONT)
    elif what == "scripts":
        await manager.store.client.script_flush()
    elif what == "clients":
        await manager.store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    elif what == "server":
        server.kill()
        return EmbeddedServer.start(folder / "server", die_with_parent=True)
    return server


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


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
