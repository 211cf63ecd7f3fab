"""Jobs that wait for others, chains and batches."""

from typing import Any

from examples.here import run
from rf_jobs import Batch, BatchHandle, Chain, Job, JobContext, JobError, QueueManager, WorkerPool


class Resize(Job):
    image: str

    async def handle(self, ctx: JobContext) -> str:
        return f"{self.image} (small)"


class Publish(Job, max_attempts=1):
    async def handle(self, ctx: JobContext) -> list[Any]:
        if ctx.previous is None:
            raise ValueError("nothing to publish")
        return [ctx.previous] if isinstance(ctx.previous, str) else sorted(ctx.previous)


async def on_done(batch: BatchHandle) -> None:
    print("done:", (await batch.progress()).completed, "images")


async def on_failed(batch: BatchHandle, error: JobError) -> None:
    print(f"{batch.id} failed:", error)


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        images = await manager.dispatch_many([Resize(image="a.png"), Resize(image="b.png")])
        both = await manager.dispatch(Publish()).depends_on(*images).result(timeout=10)
        assert both == ["a.png (small)", "b.png (small)"]

        chain = Chain().then(Resize(image="c.png")).then(Publish())
        await chain.dispatch(manager)
        assert await chain.wait(timeout=10) == "completed"

        batch = Batch(Resize(image=f"{n}.png") for n in range(20)).name("album").then(on_done)
        await batch.dispatch(manager)
        assert await batch.wait(timeout=10) == "completed"

        fails = Batch([Chain([Publish(), Resize(image="never.png")]), Resize(image="d.png")]).catch(on_failed)
        await fails.dispatch(manager)
        assert await fails.wait(timeout=10) == "failed"


if __name__ == "__main__":
    run(main)
