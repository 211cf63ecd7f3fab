"""A circuit breaker and jobs that were dispatched under a name that their class had before."""

from __future__ import annotations

from rf_jobs import Breaker, Job, JobContext, QueueManager, WorkerConfig, WorkerPool
from tests.support.waiting import until

QUEUE = "breaker"


class Renamed(
    Job, queue=QUEUE, name="breaker:renamed", aliases=("breaker:former",), breaker=Breaker(failures=1, per=30, cooldown=30), max_attempts=1
):  # fmt: skip
    async def handle(self, ctx: JobContext) -> None:
        raise ConnectionError("down")


async def test_a_breaker_stops_jobs_of_its_class_under_all_its_names(redis_url: str) -> None:
    async with (
        QueueManager(redis_url) as manager,
        WorkerPool(WorkerConfig(queues=[QUEUE], sleep=5), manager),
    ):
        await manager.dispatch(Renamed())

        async def open_for_all() -> bool:
            return set(await manager.paused()) == {"class:breaker:renamed", "class:breaker:former"}

        await until(open_for_all, "the breaker is open", 5)
