"""A long job as many small items: it goes on behind the last one that is done, whatever interrupts it."""

from collections.abc import AsyncIterator

from examples.here import run
from rf_jobs import IterableJob, JobContext, QueueManager, WorkerPool

done: list[str] = []


class Greet(IterableJob, backoff=0.05):
    names: list[str]

    async def items(self, cursor: int | None) -> AsyncIterator[tuple[int, str]]:
        for number in range(0 if cursor is None else cursor + 1, len(self.names)):
            yield number, self.names[number]

    async def each(self, ctx: JobContext, item: str) -> None:
        if item == "Cem" and ctx.attempt == 1:
            raise ConnectionError("lost in the middle")
        done.append(item)

    async def on_resume(self, ctx: JobContext) -> None:
        ctx.log("going on", done=ctx.state["done"])


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        job = await manager.dispatch(Greet(names=["Ada", "Bo", "Cem", "Dot"])).handle()
        print(await job.result(timeout=10), "items:", ", ".join(done))
    assert done == ["Ada", "Bo", "Cem", "Dot"], "each once"
    assert [line.fields for line in await job.logs()] == [{"done": 2}]


if __name__ == "__main__":
    run(main)
