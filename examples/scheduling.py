"""Delays, priorities, expiry, and an id of one's own."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

from examples.here import run
from rf_jobs import Job, JobContext, Priority, QueueManager, WorkerConfig, WorkerPool

ran: list[str] = []


class Note(Job):
    text: str

    async def handle(self, ctx: JobContext) -> None:
        ran.append(self.text)


async def main(manager: QueueManager) -> None:
    ran.clear()
    await manager.dispatch(Note(text="ordinary"))
    await manager.dispatch(Note(text="urgent")).priority(Priority.CRITICAL)
    last = await manager.dispatch(Note(text="later")).delay(timedelta(milliseconds=200))
    await manager.dispatch(Note(text="next year")).at(datetime.now(UTC) + timedelta(days=365)).tags("tenant:7")
    await manager.dispatch(Note(text="only while it is fresh")).expires_in(3600)
    mine = uuid4()
    assert await manager.dispatch(Note(text="once")).with_id(mine) == mine
    assert await manager.dispatch(Note(text="once")).with_id(mine) == mine  # sent again: not doubled
    async with WorkerPool(WorkerConfig(max_concurrent_jobs=1), manager):
        await manager.wait(last, timeout=10)
    print(ran)
    assert ran == ["urgent", "ordinary", "only while it is fresh", "once", "later"]


if __name__ == "__main__":
    run(main)
