"""Tests without a server: what was dispatched, and what comes of it."""

from rf_jobs import Job, JobContext, Queue, QueueManager
from rf_jobs.testing import FakeQueue, inline


class Greet(Job, queue="greetings"):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        ctx.log("greeting", name=self.name)
        if ctx.attempt == 1:
            raise ConnectionError("the line was busy")
        return f"Hello, {self.name}!"


async def sign_up(name: str) -> None:
    """The code under test."""
    await Queue.dispatch(Greet(name=name)).delay(60)


async def main(manager: QueueManager) -> None:
    with FakeQueue() as queue:
        await sign_up("Ann")
    queue.assert_dispatched(Greet, name="Ann", delay=60)
    queue.assert_not_dispatched(Greet, name="Bob")
    try:
        queue.assert_dispatched(Greet, name="Bob")
    except AssertionError as failure:
        print(failure)

    with inline() as queue:
        await sign_up("Ann")
    ran = queue.ran(queue.ids[0])
    print(f"{ran.result} after {ran.attempt} attempts; it logged {ran.notes.messages}")

    ctx = JobContext.fake(attempt=2)
    print(await Greet(name="Bob").handle(ctx), ctx.notes.lines[0])
    print(f"on the server: {await manager.queues()}")


if __name__ == "__main__":
    from examples.here import run

    run(main)
