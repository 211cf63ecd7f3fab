"""rf-jobs: ``rf-jobs worker`` with one supervised process, leases, ledger and acknowledgements on, as it is by default;
100 jobs at once. Metrics and tracing are what the variants switch, by ``RF_JOBS_TELEMETRY_*``.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import uvloop

from benchmarks.apps.agent import Enqueuer, Stamps, redis_url, serve
from rf_jobs import Job, JobContext, QueueManager, Rate
from rf_jobs.telemetry import telemetry

QUEUE = "bench"
stamps = Stamps()


class Noop(Job, name="noop", queue=QUEUE):
    async def handle(self, ctx: JobContext) -> None:
        """Nothing."""


class Stamp(Job, name="stamp", queue=QUEUE):
    sent_ns: int

    async def handle(self, ctx: JobContext) -> None:
        stamps.note(self.sent_ns)


class Payload(Job, name="payload", queue=QUEUE):
    body: str

    async def handle(self, ctx: JobContext) -> None:
        """Nothing."""


class Bounded(Job, name="bounded", queue=QUEUE, concurrency=50_000):
    """A limit that never binds."""

    async def handle(self, ctx: JobContext) -> None:
        """Nothing."""


class Rated(Job, name="rated", queue=QUEUE, rate=Rate(100_000, per=0.25)):
    """A rate that never binds."""

    async def handle(self, ctx: JobContext) -> None:
        """Nothing."""


class RfJobs(Enqueuer):
    async def connect(self) -> None:
        self._manager = await QueueManager.connect(redis_url())
        self._open = AsyncExitStack()
        settings = self._manager.settings.telemetry
        if settings.metrics or settings.tracing:
            await self._open.enter_async_context(telemetry(self._manager, settings))

    async def close(self) -> None:
        await self._open.aclose()
        await self._manager.aclose()

    async def noop(self) -> None:
        await self._manager.dispatch(Noop())

    async def stamp(self, sent_ns: int) -> None:
        await self._manager.dispatch(Stamp(sent_ns=sent_ns))

    async def payload(self, body: str) -> None:
        await self._manager.dispatch(Payload(body=body))

    async def ping(self) -> None:
        await self._manager.store.run(self._manager.store.commands.ping())

    async def bulk(self, count: int) -> None:
        await self._manager.dispatch_many([Noop() for _ in range(count)])


if __name__ == "__main__":
    serve(RfJobs(), uvloop.run)
