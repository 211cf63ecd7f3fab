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
from rf_jobs.store.failures import blames_the_call
from rf_jobs.store.shapes import Retention
from rf_jobs.words.errors import RfJobsError
from rf_jobs.worker.patience import PATIENCE_SECONDS, Failures

log = logging.getLogger("rf_jobs.worker")
MAX_ENDS = 500
GIVE_UP_AFTER = 3
"""So often a single outcome may fail at a server that answers, before it is replaced by one that can be sent."""


class Finisher:
    """``run`` goes on until ``drain`` was called and every outcome is delivered. Loses nothing: what the server would not
    take stays leased in the store until its lease runs out."""

    def __init__(self, lifecycle: Lifecycle, retention: Retention, settled: Callable[[Sequence[int]], None]) -> None:
        self._lifecycle = lifecycle
        self._retention = retention
        self._settled = settled
        self._ends: list[AttemptEnd] = []
        self._places: list[int] = []
        """Where in the lease table the ended attempts stand; freed once the server has the outcome."""
        self._news = asyncio.Event()
        self._limit = MAX_ENDS
        """How many go with one call: fewer after a failure, since one that can't be sent must not hold up the others."""
        self._draining = False
        self._failures = Failures()
        self._alone = 0
        """How often the first one failed by itself at a server that answers."""

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
                await self._deliver(self._ends[: self._limit])
            elif self._draining:
                return
            else:
                await self._news.wait()

    async def _deliver(self, ends: list[AttemptEnd]) -> None:
        step = transitions.finish(self._lifecycle.store.commands, ends, self._retention)
        try:
            await self._lifecycle.apply(step, retry_for=PATIENCE_SECONDS)
        except Exception as error:  # of whatever kind: a worker that tells no outcomes would hold its jobs for ever
            await self._failed(error, ends)
            return
        self._failures.end()
        self._alone = 0
        self._limit = min(MAX_ENDS, self._limit * 2)
        self._drop(len(ends))

    def _drop(self, count: int) -> None:
        self._settled(self._places[:count])
        del self._ends[:count], self._places[:count]

    async def _failed(self, error: Exception, ends: list[AttemptEnd]) -> None:
        """Unreachable, or it refused. Keep trying, with pauses and ever fewer; what can't be sent alone is given up."""
        self._failures.add(f"{len(ends)} outcomes wait: {error}")
        self._limit = max(1, len(ends) // 2)
        if len(ends) == 1 and blames_the_call(error) and await self._answers():
            self._alone += 1
            if self._alone >= GIVE_UP_AFTER:
                self._alone = 0
                self._give_up(ends[0], error)
                return
        await self._failures.pause()

    async def _answers(self) -> bool:
        store = self._lifecycle.store
        try:
            return await store.run(store.commands.ping(), retry_for=0.0)
        except RfJobsError:
            return False

    def _give_up(self, end: AttemptEnd, error: Exception) -> None:
        if end.ending.reason == transitions.REFUSED:
            log.error("job %s cannot be ended at all; its lease will run out: %s", end.ending.id, error)
            self._drop(1)
        else:
            log.error("the outcome of job %s cannot be told; burying it: %s", end.ending.id, error)
            self._ends[0] = transitions.refused(end, str(error))
