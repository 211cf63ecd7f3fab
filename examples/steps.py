"""Steps that are done stay done: a later attempt gets their answers without doing them again."""

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, WorkerPool

paid: list[int] = []


class Order(Job, backoff=0.05):
    number: int

    async def handle(self, ctx: JobContext) -> str:
        receipt = await ctx.step("pay", self.pay)
        if ctx.attempt == 1:
            raise ConnectionError("the carrier does not answer")
        return await ctx.step("ship", lambda: f"shipped against {receipt}")

    async def pay(self) -> str:
        paid.append(self.number)
        return f"receipt {len(paid)}"


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        print(await manager.dispatch(Order(number=7)).result(timeout=10))
    assert paid == [7], "once, in two attempts"


if __name__ == "__main__":
    run(main)
