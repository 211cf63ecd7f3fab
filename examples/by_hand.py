"""Leasing jobs by hand, without a worker."""

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager


class Row(Job, queue="rows"):
    number: int

    async def handle(self, ctx: JobContext) -> None: ...


async def main(manager: QueueManager) -> None:
    await manager.dispatch_many([Row(number=n) for n in range(3)])
    first, second, third = await manager.pop_batch("rows", 10, lease=30)
    await first.complete()
    await second.retry(delay=60)
    await third.fail("not a row")
    print(await manager.counts("rows"))


if __name__ == "__main__":
    run(main)
