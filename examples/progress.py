"""A long job says how far it is, and after a failure goes on where its last checkpoint was."""

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool


class Import(Job, backoff=0.05):
    rows: int

    async def handle(self, ctx: JobContext) -> list[int]:
        start = ctx.state or 0
        for row in range(start, self.rows):
            await ctx.progress(row + 1, self.rows, f"row {row}")
            await ctx.checkpoint(row + 1)
            if row == 4 and ctx.attempt == 1:
                raise ConnectionError("lost in the middle")
        return [start, self.rows]


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        job = await manager.dispatch(Import(rows=10)).handle()
        started_at, end = await job.result(timeout=10)
    progress = await job.progress()
    print(f"the second attempt began at row {started_at} of {end}; {progress.percentage:.0f} %")
    assert (started_at, progress.percentage) == (5, 100)


if __name__ == "__main__":
    run(main)
