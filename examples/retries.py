"""A failed attempt is tried again after a backoff; what cannot be saved becomes a dead letter that can be replayed."""

from examples.here import run
from rf_jobs import ExecutionFailed, Exponential, Fail, Job, JobContext, JobError, QueueManager, Retry, WorkerPool


class CallApi(Job, max_attempts=5, backoff=Exponential(0.05, cap=1)):
    async def handle(self, ctx: JobContext) -> str:
        if ctx.attempt == 1:
            raise ConnectionError("the API is down")  # any error: tried again after the backoff
        if ctx.attempt == 2:
            raise Retry("the API said when to come back", delay=0.1)
        return f"done in attempt {ctx.attempt}"


class Broken(Job):
    async def handle(self, ctx: JobContext) -> None:
        raise Fail("this input will never work")

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        print(f"told of the failure: {error}")


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        print(await manager.dispatch(CallApi()).result(timeout=10))
        broken = await manager.dispatch(Broken()).handle()
        try:
            await broken.result(timeout=10)
        except ExecutionFailed as error:
            print(error)
    [letter] = await manager.failed_jobs()
    assert letter.id == broken.id
    assert await manager.retry_failed(letter.id)


if __name__ == "__main__":
    run(main)
