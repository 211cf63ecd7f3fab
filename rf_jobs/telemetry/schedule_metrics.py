"""From what schedulers tell to metric cells."""

from __future__ import annotations

from collections.abc import Callable

from rf_jobs.model import events as ev
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Counter, MetricStore


class ScheduleMetrics:
    """Subscribes when it is made; ``close`` ends that. A schedule has all its series from its first tick on."""

    def __init__(self, bus: EventBus, store: MetricStore) -> None:
        self._store = store
        self._ticks: dict[str, dict[str, Counter]] = {}
        handlers: dict[type[ev.Event], Callable[..., None]] = {
            ev.ScheduleTicked: self._on_ticked,
            ev.ScheduleTaken: lambda event: self._count(event, "duplicate"),
            ev.ScheduleOverlapped: lambda event: self._count(event, "overlap"),
            ev.ScheduleFailed: lambda event: self._count(event, "error"),
            ev.ScheduleMissed: lambda event: self._count(event, "missed", event.count),
        }
        self._ends = [bus.subscribe(kind, handler) for kind, handler in handlers.items()]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _count(self, event: ev.ScheduleEvent, result: str, by: int = 1) -> None:
        cells = self._ticks.get(event.schedule)
        if cells is None:
            cells = self._ticks[event.schedule] = {
                each: self._store.counter(names.SCHEDULE_TICKS, event.schedule, each) for each in names.TICK_RESULTS
            }
        cells[result].value += by

    def _on_ticked(self, event: ev.ScheduleTicked) -> None:
        self._count(event, "fired")
        self._store.histogram(names.SCHEDULE_TICK_LAG).observe(event.lag)
