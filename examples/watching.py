"""Follow a job live: its states, its progress, its log lines, its failures."""

from examples.here import run
from rf_jobs import (
    AttemptError,
    Cancellation,
    Job,
    JobContext,
    LogLine,
    Progress,
    QueueManager,
    StateChanged,
    WorkerPool,
)


class Bake(Job, backoff=0.05):
    loaves: int

    async def handle(self, ctx: JobContext) -> None:
        ctx.log("the oven is hot", attempt=ctx.attempt)
        for loaf in range(self.loaves):
            await ctx.progress(loaf + 1, self.loaves)
        if ctx.attempt == 1:
            raise RuntimeError("burnt")


async def main(manager: QueueManager) -> None:
    states: list[str] = []
    async with WorkerPool(manager=manager):
        job = await manager.dispatch(Bake(loaves=3)).handle()
        async for update in job.watch():
            match update:
                case StateChanged():
                    states.append(update.state)
                    print(update.state)
                case Progress():
                    print(f"{update.percentage:.0f} %")
                case LogLine():
                    print(update.message, update.fields)
                case AttemptError():
                    print(f"attempt {update.attempt} failed: {update.message}")
                case Cancellation():
                    print(f"somebody cancels it: {update.reason}")
    assert states[-1] == "completed"
    assert [line.attempt for line in await job.logs()] == [1, 2]


if __name__ == "__main__":
    run(main)
