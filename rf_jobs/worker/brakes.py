"""What a worker does about limits: says what its classes define, and counts failures for circuit breakers."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable

from rf_jobs.client.manager import QueueManager
from rf_jobs.core import transitions
from rf_jobs.model.events import FailedAttempt, JobDied, JobRetried
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.model.limits import definitions, own_names
from rf_jobs.store import limit_calls
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.timing import millis

log = logging.getLogger("rf_jobs.worker")
CODE_FIELDS = ("c", "r", "p", "a")
"""Of a limit: what the code says, as opposed to an operator."""
FAILURES = ("exception", "timeout")


class Brakes:
    """Starts with ``start``, before the first fetch; ends with ``stop``. A failure that can't be counted is not counted."""

    def __init__(self, manager: QueueManager, registry: Registry) -> None:
        self._manager = manager
        self._registry = registry
        self._ends: list[Callable[[], None]] = []
        self._telling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Define the limits of all classes that are known here. Raises ``BackendError``."""
        entries = [entry for name in self._registry.names() if (entry := self._registry.find(name)) is not None]
        defined = {name: fields for entry in entries for name, fields in definitions(entry).items()}
        commands = self._manager.store.commands
        calls = [limit_calls.define(commands, name, fields) for name, fields in defined.items()]
        known = await self._manager.store.run(limit_calls.names(commands))
        own = {name for entry in entries for name in own_names(entry)}
        calls += [limit_calls.define(commands, n, {}, CODE_FIELDS) for n in known if n in own and n not in defined]
        if calls:
            await self._manager.store.run_many(calls)
        if any(entry.options.breaker is not None for entry in entries):
            for kind in (JobRetried, JobDied):
                self._ends.append(self._manager.bus.subscribe(kind, self._failed))

    def _failed(self, event: FailedAttempt) -> None:
        entry = self._registry.find(event.job_class)
        if entry is None or entry.options.breaker is None or event.reason not in FAILURES:
            return
        # An empty context: the count is nobody's span.
        task = asyncio.create_task(
            self._count(entry, event.queue), name="rf-jobs-breaker", context=contextvars.Context()
        )
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _count(self, entry: JobClass, queue: str) -> None:
        breaker = entry.options.breaker
        if breaker is None:
            return
        lifecycle, cooldown = self._manager.lifecycle, millis(breaker.cooldown)
        step = transitions.failure(
            lifecycle.store.commands, queue, entry.name, breaker.failures, millis(breaker.per), cooldown
        )
        try:
            if await lifecycle.apply(step, retry_for=0):  # sent twice it would count twice
                if len(lifecycle.store.shards) > 1:  # it is open in one of them
                    await lifecycle.store.run(
                        limit_calls.hold(lifecycle.store.commands, f"class:{entry.name}", cooldown)
                    )
                for name in entry.aliases:  # jobs that were dispatched under names that it had before
                    await lifecycle.apply(transitions.hold(lifecycle.store.commands, f"class:{name}", cooldown))
                log.warning(
                    "the circuit breaker of %s is open: %d failures; its jobs wait for %g s", entry.name, breaker.failures,
                    cooldown / 1000,
                )  # fmt: skip
        except RfJobsError as error:
            log.warning("a failure of %s was not counted for its circuit breaker: %s", entry.name, error)

    async def stop(self) -> None:
        """Count what is still to be counted, and listen no more."""
        for end in self._ends:
            end()
        await asyncio.gather(*self._telling, return_exceptions=True)
