"""Outcomes out: tells the server how attempts ended.

While one call is in flight, outcomes pile up for the next: batches form by themselves and nobody waits for a timer. It runs
beside the fetcher, so that the server works on one of the two while this process works on the reply to the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.store.redis import pause_before
from rf_jobs.store.shapes import Retention
from rf_jobs.words.errors import RfJobsError

log = logging.getLogger("rf_jobs.worker")
MAX_ENDS = 500
PATIENCE_SECONDS = 2.0
"""How long one call tries before it says that the server is gone; then it goes on trying."""


class Finisher:
    """``run`` goes on until ``drain`` was called and every outcome is delivered. Loses nothing: what the server would not
    take stays leased in the store until its lease runs out."""

    def __init__(
        self, lifecycle: Lifecycle, retention: Retention, settled: Callable[[Sequence[int]], None]
    ) -> None:
        self._lifecycle = lifecycle
        self._retention = retention
        self._settled = settled
        self._ends: list[AttemptEnd] = []
        self._places: list[int] = []
        """Where in the lease table the ended attempts stand; freed once the server has the outcome."""
        self._news = asyncio.Event()
        self._draining = False
        self._failures = 0

    def ended(self, end: AttemptEnd, place: int) -> None:
        """An attempt ended; tell the server at the next occasion."""
        self._ends.append(end)
        self._places.append(place)
        self._news.set()

    @property
    def undelivered(self) -> int:
        """Outcomes that the server has not taken yet."""
        return len(self._ends)

    def drain(self) -> None:
        """``run`` ends once every outcome is delivered."""
        self._draining = True
        self._news.set()

    async def run(self) -> None:
        """Deliver until told to drain and nothing is left."""
        while True:
            self._news.clear()
            if self._ends:
                await self._deliver(self._ends[:MAX_ENDS])
            elif self._draining:
                return
            else:
                await self._news.wait()

    async def _deliver(self, ends: list[AttemptEnd]) -> None:
        step = transitions.finish(self._lifecycle.store.commands, ends, self._retention)
        try:
            await self._lifecycle.apply(step, retry_for=PATIENCE_SECONDS)
        except RfJobsError as error:
            # Unreachable, or it refused. Keep trying, with pauses.
            self._failures += 1
            loud = self._failures <= 3 or self._failures % 20 == 0
            log.log(logging.WARNING if loud else logging.DEBUG, "%d outcomes wait: %s; trying again", len(ends), error)
            await asyncio.sleep(pause_before(self._failures))
            return
        self._failures = 0
        self._settled(self._places[: len(ends)])
        del self._ends[: len(ends)], self._places[: len(ends)]
