"""From what happens to batches, chains and limits to metric cells."""

from __future__ import annotations

from collections.abc import Callable

from rf_jobs.model import events as ev
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import MetricStore


class WorkflowMetrics:
    """Subscribes when it is made; ``close`` ends that."""

    def __init__(self, bus: EventBus, store: MetricStore) -> None:
        self._store = store
        store.precreate([names.WORKFLOWS_FINISHED])
        handlers: dict[type[ev.Event], Callable[..., None]] = {
            ev.BatchFinished: self._on_finished,
            ev.JobBlocked: self._on_blocked,
        }
        self._ends = [bus.subscribe(kind, handler) for kind, handler in handlers.items()]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _on_finished(self, event: ev.BatchFinished) -> None:
        self._store.counter(names.WORKFLOWS_FINISHED, event.kind, event.state).value += 1
        self._store.histogram(names.WORKFLOW_DURATION, event.kind).observe(event.seconds)

    def _on_blocked(self, event: ev.JobBlocked) -> None:
        if event.reason == ev.DEPENDENCIES:
            return
        # A limit counts for all its keys: these have no bound. Of pauses the kind is enough.
        limiter = "pause" if event.reason.startswith("!") else event.reason.partition("/")[0]
        self._store.counter(names.THROTTLED, limiter).value += 1
