"""What batches, dependencies and limits cost: ``python -m benchmarks.workflows``.

Drains the same number of no-op jobs in rounds of four kinds, one after the other: plain ones, members of one batch, jobs under a
concurrency limit that does not bind, jobs under a rate that does not bind. The queue is paused while it is filled. Then the large
shapes: a batch of 100,000 dispatched and drained, with one ``then``; a job that waits for 10,000 others.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.apps.rf_jobs_app import Bounded, Noop, Rated
from benchmarks.ours import ask, our_worker, parser, until_left, verdict
from benchmarks.peers.rf_jobs import QUEUE
from benchmarks.processes import Program
from benchmarks.server import Server, find_server, private_server
from rf_jobs import Batch, QueueManager

POLL_SECONDS = 0.005
BATCH_COST, LIMIT_COST = 0.30, 0.25
CUT = 20_000
"""Jobs that are prepared at once."""

Fill = Callable[[QueueManager, int], Awaitable[Any]]


async def plain(manager: QueueManager, count: int) -> None:
    for at in range(0, count, CUT):
        await manager.dispatch_many([Noop() for _ in range(min(CUT, count - at))])


async def batch(manager: QueueManager, count: int) -> None:
    await Batch(Noop() for _ in range(count)).then(Noop()).dispatch(manager)


async def bounded(manager: QueueManager, count: int) -> None:
    for at in range(0, count, CUT):
        await manager.dispatch_many([Bounded() for _ in range(min(CUT, count - at))])


async def rated(manager: QueueManager, count: int) -> None:
    for at in range(0, count, CUT):
        await manager.dispatch_many([Rated() for _ in range(min(CUT, count - at))])


KINDS: dict[str, Fill] = {"plain": plain, "batch": batch, "concurrency": bounded, "rate": rated}


def main(argv: Sequence[str] | None = None) -> int:
    """0 when each kind keeps its share of the plain rate and the large shapes come out right."""
    options = parser(__doc__)
    options.add_argument("--jobs", type=int, default=60_000, help="jobs of each drain")
    options.add_argument("--repeat", type=int, default=5)
    args = options.parse_args(argv)
    program = find_server(args.server)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with private_server(program) as server, our_worker(server) as worker:
        for number in range(args.repeat + 1):
            for kind, fill in KINDS.items():
                rate = drain(server, worker, fill, args.jobs)
                if number:  # the first round warms up
                    rates[kind].append(rate)
                    print(f"{kind:>12}: {rate:>9,.0f} jobs/s", flush=True)
        shapes = large(server, worker)
    # Each round has all kinds, so that a slow moment of the machine falls on all of them.
    shares = {
        kind: round(statistics.median(rate / base for rate, base in zip(found, rates["plain"], strict=True)), 3)
        for kind, found in rates.items()
    }
    met = (
        shares["batch"] >= 1 - BATCH_COST
        and min(shares["concurrency"], shares["rate"]) >= 1 - LIMIT_COST
        and shapes["callbacks"] == 1
    )
    found_all: dict[str, object] = {
        "jobs_per_second": {kind: [round(rate) for rate in found] for kind, found in rates.items()},
        "share_of_plain": shares,
        **shapes,
    }
    return verdict("workflows", args.output, found_all, met=met)


def drain(server: Server, worker: Program, fill: Fill, count: int) -> float:
    """Jobs a second of one worker process."""
    ask(server, lambda manager: manager.pause(QUEUE))
    ask(server, lambda manager: fill(manager, count))
    started = time.monotonic()
    ask(server, lambda manager: manager.resume(QUEUE))
    until_left(server, worker, 0, POLL_SECONDS)
    return count / (time.monotonic() - started)


def large(server: Server, worker: Program) -> dict[str, Any]:
    """A batch of 100,000, and a job that waits for 10,000."""

    async def dispatch_batch(manager: QueueManager) -> tuple[float, float, int]:
        before = (await manager.queue(QUEUE)).ledger["completed"]
        batch, began = Batch(Noop() for _ in range(100_000)).then(Noop()), time.monotonic()
        await batch.dispatch(manager)
        dispatched = time.monotonic() - began
        await batch.wait(120)
        ended = time.monotonic() - began
        until_left(server, worker, 0, POLL_SECONDS)
        return dispatched, ended, (await manager.queue(QUEUE)).ledger["completed"] - before - 100_000

    async def fan_in(manager: QueueManager) -> float:
        await manager.pause(QUEUE)
        parents = await manager.dispatch_many([Noop() for _ in range(10_000)])
        child = await manager.dispatch(Noop()).depends_on(*parents)
        began = time.monotonic()
        await manager.resume(QUEUE)
        await manager.wait(child, 120)
        return time.monotonic() - began

    dispatched, ended, callbacks = ask(server, dispatch_batch)
    return {
        "batch_of_100000_dispatched_seconds": round(dispatched, 2),
        "batch_of_100000_over_seconds": round(ended, 2),
        "callbacks": callbacks,
        "fan_in_of_10000_seconds": round(ask(server, fan_in), 2),
    }


if __name__ == "__main__":
    raise SystemExit(main())
