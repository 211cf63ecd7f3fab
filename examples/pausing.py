"""A paused queue takes dispatches and gives out no jobs; what runs already goes on."""

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerConfig, WorkerPool


class Mail(Job, queue="emails"):
    async def handle(self, ctx: JobContext) -> str:
        return "sent"


async def main(manager: QueueManager) -> None:
    async with WorkerPool(WorkerConfig(queues=["emails"], sleep=0.5), manager):
        assert await manager.pause("emails")
        assert not await manager.pause("emails")  # it is paused: nothing new
        mail = await manager.dispatch(Mail()).handle()
        try:
            await mail.result(timeout=0.5)
        except TimeoutError:
            print(f"{await manager.size('emails')} mail waits; paused: {(await manager.queue('emails')).paused}")
        assert await manager.resume("emails")
        print(await mail.result(timeout=10))


if __name__ == "__main__":
    run(main)
