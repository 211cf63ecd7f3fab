"""The spans of schedules: one for each tick, a trace of its own, linked to the job that it dispatched. A tick that was missed or
failed always has one, also where nothing is sampled."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.trace import SpanKind

from rf_jobs.model import events as ev
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry.spans import SYSTEM, Failure, SpanWriter, link_to
from rf_jobs.telemetry.traceparent import is_sampled
from rf_jobs.words.timing import from_ms


class ScheduleSpans:
    """Subscribes when it is made; ``close`` ends that."""

    def __init__(self, bus: EventBus, writer: SpanWriter) -> None:
        self._writer = writer
        handlers: dict[type[ev.Event], Callable[..., None]] = {
            ev.ScheduleTicked: self._on_ticked,
            ev.ScheduleMissed: self._on_missed,
            ev.ScheduleFailed: self._on_failed,
        }
        self._ends = [bus.subscribe(kind, handler) for kind, handler in handlers.items()]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _on_ticked(self, event: ev.ScheduleTicked) -> None:
        if not is_sampled(event.traceparent):
            return
        attributes: dict[str, str | int] = {
            "messaging.system": SYSTEM,
            "messaging.destination.name": event.queue,
            "messaging.message.id": event.job_id,
            "rf_jobs.job.class": event.job_class,
            **self._of(event, "fired", event.tick_ms),
            "rf_jobs.schedule.lag_ms": round(event.lag * 1000),
        }
        links = link_to(event.traceparent, "creation", event.job_id)
        self._writer.write(
            f"tick {event.schedule}", SpanKind.PRODUCER, attributes=attributes, start_ns=time.time_ns(), links=links
        )

    def _on_missed(self, event: ev.ScheduleMissed) -> None:
        attributes = self._of(event, "missed", 0)
        attributes["rf_jobs.schedule.missed"] = event.count
        self._plain(event, attributes, Failure("ScheduleMissed", f"{event.count} ticks were passed over", ""))

    def _on_failed(self, event: ev.ScheduleFailed) -> None:
        self._plain(event, self._of(event, "error", event.tick_ms), Failure("ScheduleFailed", event.reason, ""))

    def _of(self, event: ev.ScheduleEvent, result: str, tick_ms: int) -> dict[str, str | int]:
        found: dict[str, str | int] = {"rf_jobs.schedule.name": event.schedule, "rf_jobs.schedule.result": result}
        if tick_ms:
            found["rf_jobs.schedule.tick"] = from_ms(tick_ms).isoformat()
        return found

    def _plain(self, event: ev.ScheduleEvent, attributes: dict[str, str | int], failure: Failure) -> None:
        self._writer.write(
            f"tick {event.schedule}", SpanKind.INTERNAL, attributes={"messaging.system": SYSTEM, **attributes},
            start_ns=time.time_ns(), failure=failure,
        )  # fmt: skip
