"""A class has got another name and another payload. Jobs of the release before still run."""

from typing import Any

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool


class SendEmail(Job, name="example:SendEmail"):
    """The release before."""

    __qualname__ = "SendMail"  # both releases live in one process here: to it they are one class

    to: str

    async def handle(self, ctx: JobContext) -> str:
        raise AssertionError("nobody runs it any more")


before = SendEmail(to="ann@example.com")


class SendMail(Job, name="example:SendMail", aliases=("example:SendEmail",), version=2):
    """The release of today: it answers to its earlier name, and reads earlier payloads."""

    address: str

    async def handle(self, ctx: JobContext) -> str:
        return f"mailed to {self.address}"

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        return {"address": payload["to"]} if version < 2 else payload


async def main(manager: QueueManager) -> None:
    waiting = await manager.dispatch(before)
    async with WorkerPool(manager=manager):
        result = await manager.wait(waiting, timeout=10)
        print(result)
        assert result == "mailed to ann@example.com"


if __name__ == "__main__":
    run(main)
