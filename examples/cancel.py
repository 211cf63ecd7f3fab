"""Jobs can be cancelled before they run, and while they run, on any host."""

from examples.here import run
from rf_jobs import Job, JobContext, JobError, QueueManager, WorkerPool, events

import asyncio  # isort: skip


class Endless(Job):
    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(3600)


async def main(manager: QueueManager) -> None:
    waiting = await manager.dispatch(Endless()).delay(60).handle()
    assert await waiting.cancel("not needed any more")
    started = asyncio.Event()
    manager.bus.subscribe(events.JobStarted, lambda _: started.set())
    async with WorkerPool(manager=manager):
        running = await manager.dispatch(Endless()).handle()
        await started.wait()
        assert await running.cancel()
        try:
            await running.result(timeout=10)
        except JobError as error:
            print(error)
    assert (await running.record()).state == (await waiting.record()).state == "cancelled"


if __name__ == "__main__":
    run(main)
