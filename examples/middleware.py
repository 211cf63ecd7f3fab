"""A middleware wraps every dispatch and every run; the event bus tells of every transition."""

from typing import Any

from examples.here import run
from rf_jobs import Envelope, Handle, Headers, Job, JobContext, Middleware, QueueManager, WorkerPool, events


class Tenant(Middleware):
    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        headers.bg = {"tenant": "7"}

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        print(f"running {ctx.job_class} for tenant {ctx.headers['tenant']}")
        return await handle()


class Salute(Job):
    def handle(self, ctx: JobContext) -> str:  # a plain function runs in a thread
        return f"hello, tenant {ctx.headers['tenant']}"


async def main(manager: QueueManager) -> None:
    manager.middleware.add(Tenant())
    manager.bus.subscribe(
        events.JobCompleted, lambda event: print(f"{event.job_id} took {event.duration * 1000:.1f} ms")
    )
    async with WorkerPool(manager=manager):
        assert await manager.dispatch(Salute()).result(timeout=10) == "hello, tenant 7"


if __name__ == "__main__":
    run(main)
