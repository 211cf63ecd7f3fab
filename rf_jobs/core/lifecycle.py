"""``Lifecycle.apply``: run the script, then announce. Nothing else changes a job's state."""

from __future__ import annotations

from typing import TypeVar

from rf_jobs.core.transitions import Transition
from rf_jobs.model.events import EventBus, OperationDone
from rf_jobs.store.redis import AsyncStore

R = TypeVar("R")


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
        """Make the change, then announce it. Raises ``BackendError``; then nothing is announced."""
        reply = await self.store.run(transition.call, retry_for=retry_for)
        self.bus.emit_all(transition.announce(reply))
        return reply
