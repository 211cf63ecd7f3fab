"""Jobs that tell what their context told them, in a module that child processes can import."""

from __future__ import annotations

import asyncio
from typing import Any

from rf_jobs import CustomError, Job, JobContext, JobError, QueueManager, StaleLease

QUEUE = "contexts"
heard: list[JobError] = []
"""What ``failed`` was given."""


def told(ctx: JobContext) -> dict[str, Any]:
    """All that any handler can look at."""
    return {
        "job_id": str(ctx.job_id), "queue": ctx.queue, "attempt": ctx.attempt, "max_attempts": ctx.max_attempts,
        "final": ctx.is_final_attempt, "headers": ctx.headers, "key": ctx.idempotency_key, "fence": ctx.fencing_token,
        "tags": list(ctx.tags), "dispatched": ctx.dispatched_at.isoformat(), "started": ctx.started_at.isoformat(),
        "deadline": ctx.deadline.isoformat(), "stop": [ctx.cancelled, ctx.stopping], "chain": ctx.chain, "batch": ctx.batch,
    }  # fmt: skip


class OnLoop(Job, queue=QUEUE, tags=("mine",), backoff=0, max_attempts=3):
    fails: int = 0

    async def handle(self, ctx: JobContext) -> list[dict[str, Any]]:
        seen = [*(ctx.state or []), told(ctx)]
        await ctx.checkpoint(seen)
        if ctx.attempt <= self.fails:
            raise ConnectionError("once more")
        return seen


class OnThread(Job, queue=QUEUE, tags=("mine",), max_attempts=3):
    def handle(self, ctx: JobContext) -> list[dict[str, Any]]:
        return [told(ctx)]


class Apart(Job, queue=QUEUE, tags=("mine",), max_attempts=3, executor="process"):
    def handle(self, ctx: JobContext) -> list[dict[str, Any]]:
        return [told(ctx)]


class Collects(Job, queue=QUEUE):
    """Waits for others."""

    async def handle(self, ctx: JobContext) -> dict[str, Any]:
        return {"follows": ctx.follows, "inputs": ctx.inputs, "previous": ctx.previous}


class Timed(Job, queue=QUEUE, timeout=30, max_attempts=1):
    """Says by itself how long it may take."""

    limit: Any
    hangs: bool = False

    def timeout(self) -> Any:
        return 1 / 0 if self.limit == "broken" else self.limit

    async def handle(self, ctx: JobContext) -> float:
        if self.hangs:
            await asyncio.Event().wait()
        return (ctx.deadline - ctx.started_at).total_seconds()


class CardError(CustomError):
    def __init__(self, card: str) -> None:
        super().__init__(f"card {card} was refused")
        self.card = card


class Charge(Job, queue=QUEUE, max_attempts=1):
    custom: bool

    async def handle(self, ctx: JobContext) -> None:
        raise CardError("4711") if self.custom else ConnectionError("no answer")

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        heard.append(error)


class Robbed(Job, queue=QUEUE, max_attempts=1):
    """Its lease is taken away while it runs."""

    how: str

    async def handle(self, ctx: JobContext) -> None:
        manager = ctx.manager
        assert isinstance(manager, QueueManager)
        await manager.store.client.hset(manager.store.keys.of("meta", ctx.id), "token", "another's")
        try:
            if self.how == "checkpoint":
                await ctx.checkpoint("mine")
            else:
                await ctx.step("pay", lambda: 7)
        except StaleLease as error:
            heard.append(JobError(str(error)))
            raise
