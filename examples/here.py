"""What the examples share: a manager on ``RF_JOBS_REDIS_URL``, or on a server that lives as long as the example."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from rf_jobs import QueueManager
from rf_jobs.store.embedded import EmbeddedServer


def run(main: Callable[[QueueManager], Awaitable[None]]) -> None:
    """Run an example."""
    url = os.environ.get("RF_JOBS_REDIS_URL")
    if url:
        asyncio.run(_with_manager(main, url))
    else:
        with EmbeddedServer.ephemeral() as server:
            asyncio.run(_with_manager(main, server.url))


async def _with_manager(main: Callable[[QueueManager], Awaitable[None]], url: str) -> None:
    async with QueueManager(url) as manager:
        await main(manager)
