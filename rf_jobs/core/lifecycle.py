"""``Lifecycle.apply``: run the script, then announce. Nothing else changes a job's state."""

from __future__ import annotations

import logging
from typing import TypeVar

from rf_jobs.core.transitions import Transition, events_of
from rf_jobs.model.events import EventBus, OperationDone
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import RfJobsError

R = TypeVar("R")
log = logging.getLogger("rf_jobs")
ROUNDS = 50
"""Of settling, by whoever made the work: more is left to workers."""


class Lifecycle:
    """Applies transitions to a store and tells the bus. Starts and ends with its store; keeps nothing."""

    def __init__(self, store: AsyncStore, bus: EventBus) -> None:
        self.store = store
        self.bus = bus
        store.observer = self._operation

    def _operation(self, op: str, seconds: float, error: str) -> None:
        if self.bus.wants(OperationDone):
            self.bus.emit(OperationDone(op, seconds, error))

    async def apply(self, transition: Transition[R], *, retry_for: float | None = None) -> R:
        """Make the change, then announce it and what followed from it. Raises ``BackendError``; then nothing is announced."""
        call = transition.call
        if call.moves < 0:
            reply = await self.store.run(call, retry_for=retry_for)
            self.bus.emit_all(transition.announce(reply))
            return reply
        reply, effects, left = await self.store.run(call.with_effects(), retry_for=retry_for)
        self.bus.emit_all(transition.announce(reply))
        if effects:
            self.bus.emit_all(events_of(effects))
        if left:
            # The change is made and announced: what is left of its consequences must not make it look failed.
            try:
                await self.settle(ROUNDS)
            except RfJobsError as error:
                log.warning("consequences are left to the upkeep of a worker: %s", error)
        return reply

    async def settle(self, rounds: int = 1_000_000) -> None:
        """Do what scripts left to be done, until nothing is left, or so many times. Whoever makes such work does some of it; the
        rest, and what a process that died has left, the upkeep of any worker. Raises ``BackendError``."""
        left = 1
        while left and rounds:
            rounds -= 1
            _, effects, left = await self.store.run(self.store.commands.settle().with_effects())
            self.bus.emit_all(events_of(effects))
