"""Code without an event loop (a Django view, a script) uses the twin in ``rf_jobs.sync``: the same names, nothing to await."""

import asyncio

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, Settings, WorkerPool
from rf_jobs.sync import QueueManager as SyncQueueManager


class Shout(Job):
    text: str

    def handle(self, ctx: JobContext) -> str:  # a plain function runs in a thread
        return self.text.upper()


def view(settings: Settings) -> str:
    with SyncQueueManager(settings) as manager:
        job_id = manager.dispatch(Shout(text="hello")).priority("high").sync()
        result: str = manager.wait(job_id, timeout=10)
        print(f"{manager.job(job_id).state}: {result}")
    return result


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        assert await asyncio.to_thread(view, manager.settings) == "HELLO"


if __name__ == "__main__":
    run(main)
