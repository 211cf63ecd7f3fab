"""A handler's return value is the job's result, and its type is known where it is awaited."""

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool


class Add(Job):
    a: int
    b: int

    async def handle(self, ctx: JobContext) -> int:
        return self.a + self.b


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        total = await manager.dispatch(Add(a=2, b=3)).result(timeout=10)
    print(f"2 + 3 = {total}")
    assert total == 5


if __name__ == "__main__":
    run(main)
