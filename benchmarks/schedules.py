"""CPU of one scheduler that keeps 10,000 schedules: ``python -m benchmarks.schedules``.

``mixed``: a tenth of them run each minute, three tenths each quarter of an hour, the rest each hour, in four time zones.
``minutely``: all of them run each minute. Its start is not counted. Nobody runs the jobs.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Sequence

from benchmarks.measure import URL_VARIABLE
from benchmarks.ours import ask, parser, verdict
from benchmarks.peer import Command
from benchmarks.processes import MEGABYTE, running
from benchmarks.server import Server, find_server, private_server
from rf_jobs import Job, JobContext, QueueManager

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo")
START_SECONDS = 60.0
TOGETHER = 100


class Tick(Job, queue="ticks", name="benchmarks.tick"):
    number: int

    async def handle(self, ctx: JobContext) -> None:
        return


def expression(profile: str, number: int) -> str:
    """When a schedule runs."""
    if profile == "minutely" or number % 10 == 0:
        return "* * * * *"
    if number % 10 < 4:
        return f"{number % 15}-59/15 * * * *"
    return f"{number % 60} * * * *"


async def put(manager: QueueManager, count: int, profile: str) -> None:
    """Put them into the store."""

    async def one(number: int) -> None:
        await manager.schedules.upsert(
            f"s{number}", Tick(number=number), cron=expression(profile, number), timezone=ZONES[number % len(ZONES)]
        )

    for first in range(0, count, TOGETHER):
        await asyncio.gather(*(one(number) for number in range(first, min(first + TOGETHER, count))))


async def fired(manager: QueueManager) -> int:
    """Jobs that were dispatched so far."""
    queues = {queue.name: queue for queue in await manager.queues()}
    return queues["ticks"].ledger.get("dispatched", 0) if "ticks" in queues else 0


async def schedulers(manager: QueueManager) -> int:
    return await manager.schedules.schedulers()


def main(argv: Sequence[str] | None = None) -> int:
    """0 when it takes less of a core than the goal."""
    options = parser(__doc__)
    options.add_argument("--schedules", type=int, default=10_000)
    options.add_argument("--seconds", type=float, default=180.0)
    options.add_argument("--profile", choices=("mixed", "minutely"), default="mixed")
    options.add_argument("--goal", type=float, default=5.0, help="percent of a core")
    args = options.parse_args(argv)
    with private_server(find_server(args.server)) as server:
        ask(server, lambda manager: put(manager, args.schedules, args.profile))
        found = measure(server, args.seconds)
    found = {"schedules": args.schedules, "profile": args.profile, **found}
    share = found["scheduler_percent_of_a_core"]
    assert isinstance(share, float)
    return verdict(f"schedules-{args.profile}", args.output, found, met=share < args.goal)


def measure(server: Server, seconds: float) -> dict[str, object]:
    """What one scheduler uses, from the first minute's end on."""
    argv = [sys.executable, "-m", "rf_jobs", "scheduler", "benchmarks.schedules", "--no-tracing"]
    path = {name: value for name, value in os.environ.items() if name == "PYTHONPATH"}
    with running(Command(argv, path), {URL_VARIABLE: server.url, "RF_JOBS_REDIS_URL": server.url}) as program:
        give_up = time.monotonic() + START_SECONDS
        while not ask(server, schedulers):
            program.check()
            if time.monotonic() > give_up:
                raise SystemExit(f"no scheduler after {START_SECONDS:.0f} s: {program.said()}")
            time.sleep(0.2)
        time.sleep(min(seconds, 62.0))  # each definition is read once; from then on it is the steady state
        before, jobs, began = program.usage(), ask(server, fired), time.monotonic()
        served = server.read().cpu_seconds
        time.sleep(seconds)
        after, took = program.usage(), time.monotonic() - began
        ticks = ask(server, fired) - jobs
        cpu = after.cpu_seconds - before.cpu_seconds
        return {
            "seconds": round(took, 1),
            "ticks": ticks,
            "scheduler_percent_of_a_core": round(100 * cpu / took, 2),
            "microseconds_a_tick": round(1e6 * cpu / ticks, 1) if ticks else None,
            "server_percent_of_a_core": round(100 * (server.read().cpu_seconds - served) / took, 2),
            "scheduler_mb": round(after.rss_bytes / MEGABYTE, 1),
        }


if __name__ == "__main__":
    raise SystemExit(main())
