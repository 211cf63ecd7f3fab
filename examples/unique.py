"""Equal jobs that need not both run."""

from examples.here import run
from rf_jobs import DuplicateJob, Job, JobContext, QueueManager


class Sync(Job, unique_for=600, unique_by=("account",), unique_until="done"):
    account: int
    asked_by: str = ""

    async def handle(self, ctx: JobContext) -> None: ...


async def main(manager: QueueManager) -> None:
    first = await manager.dispatch(Sync(account=7, asked_by="Ann"))
    assert await manager.dispatch(Sync(account=7, asked_by="Bob")) == first
    assert await manager.unique_holder(manager.dispatch(Sync(account=7))) == first
    try:
        await manager.dispatch(Sync(account=7)).unique_for(600, until="done", on_conflict="raise")
    except DuplicateJob as error:
        print(error)
    replaced = await manager.dispatch(Sync(account=7)).unique_for(600, until="done", on_conflict="replace")
    assert replaced != first
    assert (await manager.job(first)).state == "cancelled"


if __name__ == "__main__":
    run(main)
