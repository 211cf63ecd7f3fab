"""A payload that is too large for the server goes to a folder, and is removed when its job is over."""

import tempfile
from dataclasses import replace

from examples.here import run
from rf_jobs import FilePayloads, Job, JobContext, QueueManager, WorkerPool


class Count(Job):
    text: str

    async def handle(self, ctx: JobContext) -> int:
        return len(self.text.split())


async def main(manager: QueueManager) -> None:
    jobs = replace(manager.settings.jobs, offload_above_bytes=10_000, offload_grace_seconds=0)
    with tempfile.TemporaryDirectory() as folder:
        store = FilePayloads(folder)  # or the setting offload_path
        async with QueueManager(replace(manager.settings, jobs=jobs), payloads=store) as other:
            job_id = await other.dispatch(Count(text="word " * 10_000))
            print(f"the server holds {(await other.job(job_id)).payload}")
            async with WorkerPool(manager=other):
                words = await other.wait(job_id, 10)
            removed = await other.sweep_payloads()  # workers do that by themselves
            print(f"{words} words; {removed} payload removed")
            assert (words, removed) == (10_000, 1)


if __name__ == "__main__":
    run(main)
