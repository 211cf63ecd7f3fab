"""What the commands that look at rf-jobs alone share: its worker, its enqueuer, its manager, a verdict."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from benchmarks.measure import STUCK_SECONDS, URL_VARIABLE, Stall
from benchmarks.peer import HERE, Command
from benchmarks.peers.rf_jobs import IMPORTS, METRICS, RfJobs, unfinished, worker_command
from benchmarks.processes import Client, Program, enqueuing, running
from benchmarks.server import Server
from rf_jobs import QueueManager

T = TypeVar("T")
BATCH = 1_000


@contextlib.contextmanager
def our_worker(server: Server, imports: str = IMPORTS, extra: Mapping[str, str] | None = None) -> Iterator[Program]:
    """One supervised worker process with metrics on."""
    command = Command(worker_command(server.url, imports), METRICS)
    with running(command, {URL_VARIABLE: server.url, **(extra or {})}) as program:
        yield program


def fill(server: Server, count: int) -> None:
    """Enqueue no-op jobs in bulk."""
    with enqueuing(RfJobs("rf-jobs metrics", METRICS).client(), {URL_VARIABLE: server.url}) as client:
        bulk(client, count)


def bulk(client: Client, count: int) -> float:
    """Seconds that it took."""
    return client.do("bulk", count=count, batch=BATCH)


def ask(server: Server, question: Callable[[QueueManager], Awaitable[T]]) -> T:
    """One call on a manager of its own."""

    async def asking() -> T:
        async with QueueManager(server.url) as manager:
            return await question(manager)

    return asyncio.run(asking())


def until_left(server: Server, worker: Program, left: int, pause: float = 0.1) -> int:
    """Wait until at most so many jobs are unfinished; answers how many there were. Raises ``ProgramFailedError``."""
    stall = Stall(STUCK_SECONDS, worker)
    while (now := unfinished(server.redis)) > left:
        stall.saw(now, pause)
    return now


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the options that all these commands have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--server", help="redis-server or valkey-server to start (the one on the PATH)")
    made.add_argument("--output", type=Path, default=HERE / "results", help="folder of the JSON")
    return made


def verdict(name: str, folder: Path, found: dict[str, object], *, met: bool) -> int:
    """Print and keep what was found; 0 when the goal is met."""
    text = json.dumps({"met": met, **found}, indent=1)
    print(text)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n")
    return 0 if met else 1
