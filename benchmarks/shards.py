"""What shards cost where one server has them all: ``python -m benchmarks.shards``.

The same jobs on four queues, in one shard and in four, in rounds: plain ones drained by a pool in this process, and one batch of
20,000, three quarters of whose members are in other shards than it is. Nodes of a cluster of their own would be faster; that takes
more machines than one. There is no goal for it.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence

from benchmarks.ours import parser, verdict
from benchmarks.server import find_server, private_server
from rf_jobs import Batch, Job, JobContext, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.words.config_settings import JobsSettings, Settings

QUEUES = ("q0", "q1", "q2", "q3")
CONFIG = WorkerConfig(queues=QUEUES, sleep=5)
PLAIN, MEMBERS = 40_000, 20_000
POLL_SECONDS = 0.02


class Nothing(Job):
    """Does nothing."""

    async def handle(self, ctx: JobContext) -> None:
        return


def settings(url: str, shards: int) -> Settings:
    places = {queue: number % shards for number, queue in enumerate(QUEUES)}
    return Settings(jobs=JobsSettings(redis_url=url, shards=shards, queue_shards=places, namespace=f"b{shards}"))


async def measure(url: str, shards: int) -> tuple[float, float, float]:
    """Jobs a second of a drain; seconds for a batch's dispatch, and until it is over."""
    async with QueueManager(settings(url, shards)) as manager:
        await manager.dispatch_many([manager.dispatch_to(Nothing(), QUEUES[n % 4]) for n in range(PLAIN)])
        began = time.monotonic()
        async with WorkerPool(CONFIG, manager):
            while sum([await manager.size(queue) for queue in QUEUES]):  # noqa: ASYNC110 (as one who looks from outside)
                await asyncio.sleep(POLL_SECONDS)
        rate = PLAIN / (time.monotonic() - began)
        batch = Batch(manager.dispatch_to(Nothing(), QUEUES[n % 4]) for n in range(MEMBERS))
        began = time.monotonic()
        await batch.dispatch(manager)
        dispatched = time.monotonic() - began
        async with WorkerPool(CONFIG, manager):
            await batch.wait(120)
        return rate, dispatched, time.monotonic() - began


def main(argv: Sequence[str] | None = None) -> int:
    """0: there is no goal."""
    options = parser(__doc__)
    options.add_argument("--repeat", type=int, default=5)
    args = options.parse_args(argv)
    rounds: dict[int, list[tuple[float, float, float]]] = {1: [], 4: []}
    with private_server(find_server(args.server)) as server:
        for number in range(args.repeat + 1):
            for shards, found in rounds.items():
                measured = asyncio.run(measure(server.url, shards))
                if number:  # the first round warms up
                    found.append(measured)
    medians = {
        shards: [statistics.median(column) for column in zip(*found, strict=True)] for shards, found in rounds.items()
    }
    result: dict[str, object] = {
        f"shards_{shards}": {
            "drain_jobs_per_second": round(rate),
            "batch_dispatched_seconds": round(dispatched, 2),
            "batch_over_seconds": round(over, 2),
        }
        for shards, (rate, dispatched, over) in medians.items()
    }
    return verdict(
        "shards", args.output, {**result, "share_of_one_shard": round(medians[4][0] / medians[1][0], 2)}, met=True
    )


if __name__ == "__main__":
    raise SystemExit(main())
