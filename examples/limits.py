"""Limits that hold in the whole fleet, turns, pauses, and why a job waits."""

import asyncio

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, Rate, RateLimited, WorkerPool


class Call(Job, concurrency=1, concurrency_key="tenant", fair_key="tenant", limits=("api",)):
    tenant: str

    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(0.01)


async def main(manager: QueueManager) -> None:
    await manager.limits.set("api", rate=Rate(1000, per=1))
    await manager.pause_key("tenant:b")
    loud = await manager.dispatch_many([Call(tenant="a") for _ in range(5)])
    held = await manager.dispatch(Call(tenant="b")).tags("tenant:b")
    async with WorkerPool(manager=manager):
        await manager.wait(loud[-1], timeout=10)
        for reason in (await manager.explain(held)).reasons:
            print(reason.message)
        await manager.resume_key("tenant:b")
        await manager.wait(held, timeout=10)
    await manager.dispatch(Call(tenant="c")).rate_limit("signups", 1, per=3600)
    try:
        await manager.dispatch(Call(tenant="c")).rate_limit("signups", 1, per=3600, on_limit="raise")
    except RateLimited as error:
        print(error)


if __name__ == "__main__":
    run(main)
