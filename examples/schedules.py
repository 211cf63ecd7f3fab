"""Recurring jobs: in code, and at run time."""

import asyncio

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, Scheduler, WorkerConfig, WorkerPool, events


class Tick(Job, queue="ticks"):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        return f"ran for {self.name}"


async def main(manager: QueueManager) -> None:
    scheduler = Scheduler(manager, timezone="Europe/Paris")
    scheduler.schedule("0 6 * * mon-fri").job(Tick(name="morning")).name("morning").jitter(120)
    scheduler.every(0.2).job(Tick(name="pulse")).name("pulse").misfire("skip", grace=5)
    ticks: asyncio.Queue[events.ScheduleTicked] = asyncio.Queue()
    manager.bus.subscribe(events.ScheduleTicked, ticks.put_nowait)
    async with scheduler, WorkerPool(WorkerConfig(queues=["ticks"]), manager):
        await manager.schedules.upsert("customer-7", Tick(name="a customer"), cron="0 9 * * fri", misfire="all")
        print(await manager.wait(await manager.schedules.trigger("customer-7"), timeout=10))
        tick = await asyncio.wait_for(ticks.get(), 10)
        print(await manager.wait(tick.job_id, timeout=10))
        for info in await manager.schedules.list():
            print(f"{info.name}: {info.when}, next run {info.next_run}, last success {info.last_success}")
        await manager.schedules.remove("customer-7")
    assert (await manager.schedules.get("pulse")).fired > 0


if __name__ == "__main__":
    run(main)
