"""The spans of workflows: one for each batch or chain when it has ended, as long as it took, and one for each job that others let go.

A batch is a trace of its own, linked to nothing else: thousands of members under one trace help nobody. All of them have its id
as their conversation.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.trace import SpanKind

from rf_jobs.model import events as ev
from rf_jobs.model.events import EventBus
from rf_jobs.telemetry.lookup import Found, Lookup
from rf_jobs.telemetry.spans import SYSTEM, Failure, SpanWriter, link_to
from rf_jobs.telemetry.traceparent import is_sampled


class WorkflowSpans:
    """Subscribes when it is made; ``close`` ends that."""

    def __init__(self, bus: EventBus, writer: SpanWriter, lookup: Lookup) -> None:
        self._writer = writer
        self._lookup = lookup
        handlers: dict[type[ev.Event], Callable[..., None]] = {
            ev.BatchFinished: self._on_finished,
            ev.JobUnblocked: self._on_unblocked,
        }
        self._ends = [bus.subscribe(kind, handler) for kind, handler in handlers.items()]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _on_finished(self, event: ev.BatchFinished) -> None:
        failure = None
        if event.state == "failed":
            failure = Failure("BatchFailed", f"{event.failed} members did not complete", "")
        now = time.time_ns()
        self._writer.write(
            f"batch {event.kind}", SpanKind.INTERNAL,
            attributes={
                "messaging.system": SYSTEM,
                "messaging.message.conversation_id": event.batch,
                "rf_jobs.batch.id": event.batch,
                "rf_jobs.batch.kind": event.kind,
                "rf_jobs.batch.state": event.state,
                "rf_jobs.batch.failed": event.failed,
            },
            start_ns=now - round(event.seconds * 1e9), end_ns=now, failure=failure,
        )  # fmt: skip

    def _on_unblocked(self, event: ev.JobUnblocked) -> None:
        at = time.time_ns()

        def write(found: Found) -> None:
            if not is_sampled(found.traceparent):
                return
            name = event.job_class or found.job_class
            attributes = self._writer.attributes("release", event.queue, name, event.job_id, found.conversation)
            if event.reason:
                attributes["rf_jobs.limit"] = event.reason
            self._writer.write(
                self._writer.name("release", event.queue, name), SpanKind.INTERNAL, attributes=attributes, start_ns=at,
                links=link_to(found.traceparent, "creation", event.job_id),
            )  # fmt: skip

        self._lookup.ask(event.job_id, write)
