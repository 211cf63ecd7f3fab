"""How long to bear with a server that does not answer, and how loudly."""

from __future__ import annotations

import asyncio
import logging

from rf_jobs.store.redis import pause_before

log = logging.getLogger("rf_jobs.worker")
PATIENCE_SECONDS = 2.0
"""How long one call tries before it says that the server is gone; then its loop goes on trying."""
LOUD_AT_FIRST, LOUD_EACH = 3, 20


class Failures:
    """The failures in a row of a loop that never gives up."""

    def __init__(self) -> None:
        self._count = 0

    def end(self) -> None:
        """It went well."""
        self._count = 0

    def add(self, what: str) -> None:
        """Count another and log it, as a warning now and then only."""
        self._count += 1
        loud = self._count <= LOUD_AT_FIRST or self._count % LOUD_EACH == 0
        log.log(logging.WARNING if loud else logging.DEBUG, "%s; trying again", what)

    async def pause(self) -> None:
        """Longer the more there were."""
        await asyncio.sleep(pause_before(self._count))
