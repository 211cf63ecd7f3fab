"""Carries a process's metric deltas to the store, where the exporter adds up the whole fleet's.

A delta keeps its number until the store has answered; sent again under the same number it is not counted twice. While
the server is away the cells go on gathering, and nothing is lost: only what is still undelivered when the process ends is
dropped, or what the store has refused for good.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass

from rf_jobs.store.failures import Failure, kind
from rf_jobs.store.redis import AsyncStore
from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Delta, MetricStore
from rf_jobs.words.errors import RfJobsError

log = logging.getLogger("rf_jobs.telemetry")
MAX_REFUSALS = 5
"""A delta that a reachable server refuses so often is given up: it would stand in the way of all later ones."""


@dataclass
class _Pending:
    number: int
    delta: Delta
    refusals: int = 0


class Flusher:
    """``run`` flushes until it is cancelled; ``close`` flushes what is left. A killed process loses what it gathered
    since the last flush."""

    def __init__(self, store: AsyncStore, cells: MetricStore, source: str, every: float) -> None:
        self._store = store
        self._cells = cells
        self._source = source
        self._every = every
        self._number = 0
        self._pending: _Pending | None = None
        self._busy = asyncio.Lock()
        self._dropped = cells.counter(names.TELEMETRY_DROPPED, "delta")

    async def run(self) -> None:
        """Flush every now and then, not in step with other processes."""
        while True:
            await asyncio.sleep(self._every * random.uniform(0.9, 1.1))  # noqa: S311
            await self.flush()

    async def flush(self, *, patience: float = 0.0) -> bool:
        """Send what has changed; answers whether the store has it now. ``patience``: seconds to try for."""
        async with self._busy:
            if self._pending is not None and not await self._deliver(self._pending, patience):
                return False
            delta = self._cells.take_delta()
            if not delta:
                return True
            self._number += 1
            self._pending = _Pending(self._number, delta)
            return await self._deliver(self._pending, patience)

    async def _deliver(self, pending: _Pending, patience: float) -> bool:
        """Answers whether there is nothing left of it to do."""
        delta = pending.delta
        call = self._store.commands.flush(self._source, pending.number, delta.increments, delta.exemplars)
        try:
            await self._store.run(call, retry_for=patience)
        except RfJobsError as error:
            return self._failed(pending, error)
        self._pending = None
        return True

    def _failed(self, pending: _Pending, error: RfJobsError) -> bool:
        cause = error.__cause__
        if cause is None or kind(cause) is not Failure.WRONG:
            log.debug("metrics wait for the server: %s", error)
            return False
        pending.refusals += 1
        if pending.refusals < MAX_REFUSALS:
            return False
        self._give_up(f"the server refused them {MAX_REFUSALS} times: {error}")
        return True

    def _give_up(self, why: str) -> None:
        self._pending = None
        self._dropped.value += 1
        log.warning("dropped the metrics of about %.0f s: %s", self._every, why)

    async def close(self, patience: float = 2.0) -> None:
        """Flush for the last time."""
        if not await self.flush(patience=patience):
            self._give_up("the server could not be reached before this process ended")
