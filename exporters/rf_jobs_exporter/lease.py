"""Which of several exporters shows the store's metrics: two at once would double every sum (docs/decisions/0014-one-exporter.md)."""

from __future__ import annotations

import asyncio
import logging

from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.ids import new_token

PATIENCE_SECONDS = 2.0
log = logging.getLogger("rf_jobs.exporter")
LEASE_SECONDS = 60.0
"""How long after its last scrape an exporter that died stays the active one. Several must be scraped more often than that."""


class ActiveLease:
    """Held by whoever is scraped: begins with the first scrape, each one renews it, ``release`` gives it up. An exporter
    that dies, or that nobody scrapes any more, loses it after ``LEASE_SECONDS``."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._holder = new_token(16)
        self.is_active = True
        """What was known last. At first: where the store can't be asked there is nothing that could be doubled."""

    async def hold(self) -> bool:
        """Take or renew it; answers whether this exporter is the active one. Where the store can't be asked it stays what
        it was."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                held = await self._store.run(self._store.commands.lease("exporter", self._holder, LEASE_SECONDS))
        except (RfJobsError, TimeoutError) as error:
            log.debug("the exporter's lease could not be renewed: %s", error)
            return self.is_active
        if held != self.is_active:
            log.info("this exporter is active now" if held else "another exporter is active; this one stands by")
        self.is_active = held
        return held

    async def release(self) -> None:
        """Let another one take over at its next scrape."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._store.run(self._store.commands.lease("exporter", self._holder, 0.0), retry_for=0.0)
        except (RfJobsError, TimeoutError) as error:
            log.debug("the exporter's lease could not be given up: %s", error)
