"""For chaos: commands that are started again when they die, and a server that is killed among them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rf_jobs import QueueManager
from rf_jobs.store.embedded import EmbeddedServer
from tests.support.jobs import QUEUE
from tests.support.processes import process, rf_jobs

QUIET = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}


def seeded() -> tuple[int, random.Random]:
    """What this run goes by, and its number; ``RF_JOBS_TEST_SEED`` replays one."""
    seed = int(os.environ.get("RF_JOBS_TEST_SEED", str(random.randrange(10**6))))
    print(f"RF_JOBS_TEST_SEED={seed}")
    return seed, random.Random(seed)


class Fleet:
    """So many processes of one command."""

    def __init__(
        self, stack: ExitStack, folder: Path, command: Sequence[str], environment: Mapping[str, str], size: int
    ) -> None:
        self._stack = stack
        self._folder = folder
        self._command = command
        self._environment = {**QUIET, **environment}
        self._size = size
        self.running: list[subprocess.Popen[bytes]] = []
        self.refill()

    def refill(self) -> None:
        """Start what is missing."""
        self.running = [one for one in self.running if one.poll() is None]
        while len(self.running) < self._size:
            log = self._folder / f"process-{time.monotonic_ns()}.log"
            self.running.append(self._stack.enter_context(process(*self._command, log=log, env=self._environment)))


class Server:
    """A server that a test may kill; its data stays."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._folder = folder
        self._start()
        stack.callback(lambda: self._server.stop())  # noqa: PLW0108 (whichever runs then)
        self.url = self._server.url

    def _start(self) -> None:
        self._server = EmbeddedServer.start(self._folder, die_with_parent=True)

    def restart(self) -> None:
        """Kill it and start another on its data."""
        self._server.kill()
        self._start()


async def disturb_store(what: str, manager: QueueManager, server: Server) -> None:
    """``scripts``: forget them; ``clients``: cut off all; ``server``: kill it."""
    if what == "scripts":
        await manager.store.client.script_flush()
    elif what == "clients":
        await manager.store.client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    elif what == "server":
        server.restart()


async def harass(
    disturb: Callable[[], Awaitable[None]],
    fleet: Fleet,
    dice: random.Random,
    seconds: float,
    pauses: tuple[float, float],
) -> None:
    """One evil thing after the other, for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(dice.uniform(*pauses))
        await disturb()
        fleet.refill()


def worker_fleet(
    stack: ExitStack, url: str, effects: str, folder: Path, shards: Mapping[str, int] | None = None
) -> Fleet:
    """Two worker commands on the jobs of tests.support.jobs; ``shards``: queues, each in one of as many."""
    queues = shards or {QUEUE: 0}
    command = rf_jobs(
        "worker", "tests.support.jobs", "--queues", ",".join(queues), "--redis-url", url, "--lease-seconds", "2", "--max-crashes", "1000"
    )  # fmt: skip
    environment = {
        "RF_JOBS_TEST_EFFECTS": effects,
        "RF_JOBS_COMPLETED_KEEP": "1000000",
        "RF_JOBS_SHARDS": str(len(queues)),
        "RF_JOBS_QUEUE_SHARDS": ",".join(f"{queue}={shard}" for queue, shard in queues.items()),
    }
    return Fleet(stack, folder, command, environment, size=2)


async def disturb_workers(dice: random.Random, fleet: Fleet, manager: QueueManager, server: Server) -> None:
    """Do one evil thing."""
    what = dice.choice(["child", "child", "supervisor", "freeze", "scripts", "clients", "server"])
    children = [w.pid for w in await manager.workers() if w.state == "running"]
    if what == "child" and children:
        _signal(dice.choice(children), signal.SIGKILL)
    elif what == "supervisor":
        dice.choice(fleet.running).kill()
    elif what == "freeze" and children:
        frozen = dice.choice(children)
        _signal(frozen, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        _signal(frozen, signal.SIGCONT)
    else:
        await disturb_store(what, manager, server)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
