"""``Lifecycle.apply``: run the script, then announce. Nothing else changes a job's state."""

from __future__ import annotations

import logging
import random
from typing import TypeVar

from rf_jobs.core.transitions import Transition, events_of
from rf_jobs.model.events import EventBus, OperationDone
from rf_jobs.store import shard_calls
from rf_jobs.store.calls import Left
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
        if not call.moves_jobs:
            reply = await self.store.run(call, retry_for=retry_for)
            self.bus.emit_all(transition.announce(reply))
            return reply
        reply, effects, left = await self.store.run(call.with_effects(), retry_for=retry_for)
        self.bus.emit_all(transition.announce(reply))
        if effects:
            self.bus.emit_all(events_of(effects))
        if any(left):
            # The change is made and announced: what is left of its consequences must not make it look failed.
            try:
                await self._follow(left, ROUNDS)
            except RfJobsError as error:
                log.warning("consequences are left to the upkeep of a worker: %s", error)
        return reply

    async def settle(self, rounds: int = 1_000_000) -> None:
        """Do what scripts left to be done, until nothing is left, or so many times. Whoever makes such work does some of it; the
        rest, and what a process that died has left, the upkeep of any worker. Raises ``BackendError``."""
        await self._follow(Left(1, 1), rounds)

    async def _follow(self, left: Left, rounds: int) -> None:
        several = len(self.store.shards) > 1
        while rounds and (left.here or (several and left.abroad)):
            rounds -= 1
            settled = await self._settle() if left.here else Left(0)
            carried = await self._carry() if several and (left.abroad or settled.abroad) else Left(0)
            left = Left(settled.here + carried.here, carried.abroad)

    async def _settle(self) -> Left:
        """Some of what is in the outboxes."""
        _, effects, left = await self.store.run(self.store.commands.settle().with_effects())
        self.bus.emit_all(events_of(effects))
        return left

    async def _carry(self) -> Left:
        """Some of what shards have to say to each other. Several that do this at once do it once."""
        commands = self.store.commands
        here = abroad = 0
        away: RfJobsError | None = None
        found = await self.store.run(shard_calls.outgoing(commands))
        random.shuffle(found)  # so that each has its turn
        now = shard_calls.one_way(found)
        abroad += len(found) - len(now)
        for words in now:
            try:  # a shard that can't be reached must not keep others from hearing
                last, effects, left = await self.store.run(shard_calls.deliver(commands, words).with_effects())
                self.bus.emit_all(events_of(effects))
                await self.store.run(shard_calls.delivered(words, last))
            except RfJobsError as error:
                away = error
                continue
            here += left.here
            abroad += left.abroad + (not words.is_all(last))
        if away is not None and not here + abroad:
            raise away
        return Left(here, abroad)
