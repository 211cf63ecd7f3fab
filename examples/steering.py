"""A handler may put its job off (``Snooze``, no attempt) or give it up on purpose (``Discard``, no dead letter)."""

from examples.here import run
from rf_jobs import Discard, Job, JobContext, JobError, QueueManager, Snooze, WorkerPool

open_for_business: list[bool] = []


class Order(Job):
    async def handle(self, ctx: JobContext) -> int:
        if not open_for_business:
            open_for_business.append(True)
            raise Snooze(0.2, "the shop is closed")
        return ctx.attempt


class Reminder(Job, discard_on=KeyError):
    to: str

    async def handle(self, ctx: JobContext) -> None:
        if self.to == "nobody":
            raise Discard("nobody to remind")
        raise KeyError(self.to)  # discarded too: the class says so


async def main(manager: QueueManager) -> None:
    open_for_business.clear()
    async with WorkerPool(manager=manager):
        assert await manager.dispatch(Order()).result(timeout=10) == 1  # still the first attempt
        for to in ("nobody", "somebody"):
            reminder = await manager.dispatch(Reminder(to=to)).handle()
            try:
                await reminder.result(timeout=10)
            except JobError as error:
                print(error)
            assert (await reminder.record()).state == "cancelled"
    assert await manager.failed_jobs() == []


if __name__ == "__main__":
    run(main)
