"""The spans of everything that happens between a dispatch and an attempt, and after it: one handler for each event."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

from opentelemetry.trace import SpanContext, SpanKind

from rf_jobs.model import events as ev
from rf_jobs.model.events import AttemptEnded, EventBus, FailedAttempt, JobEvent
from rf_jobs.telemetry.attempt_spans import AttemptSpans, Mode, is_child
from rf_jobs.telemetry.lookup import Found, Lookup
from rf_jobs.telemetry.spans import SYSTEM, Failure, SpanWriter, ambient, link_to, span_context
from rf_jobs.telemetry.traceparent import Traceparent, attempt_ids, parse, text_of

LAGGED_MS = 1_000
"""Jobs promoted later than this are worth a span even in a trace that was not sampled."""

_OUTCOMES: dict[type[AttemptEnded], str] = {
    ev.JobCompleted: "success", ev.JobRetried: "retry", ev.JobDied: "dead", ev.JobDiscarded: "cancelled",
    ev.JobSnoozed: "released", ev.JobReleased: "released", ev.JobCrashed: "lost", ev.AttemptLost: "lost",
}  # fmt: skip


class _Job(NamedTuple):
    """What the spans below an attempt's say of its job."""

    job_class: str
    conversation: str
    creation: str
    """traceparent of its dispatch."""
    previous: str
    """traceparent of the attempt before."""


class LifecycleSpans:
    """Subscribes when it is made; ``close`` ends that."""

    def __init__(self, bus: EventBus, writer: SpanWriter, attempts: AttemptSpans, lookup: Lookup, mode: Mode) -> None:
        self._writer = writer
        self._attempts = attempts
        self._lookup = lookup
        self._mode: Mode = mode
        self._took = 0.0
        """How long the last exchange with the server took: events are told right after theirs."""
        self._served = "*"
        self._since = time.time_ns()
        self._stopping = 0
        handlers: dict[type[ev.Event], Callable[..., None]] = {
            ev.JobCompleted: self._on_completed,
            **dict.fromkeys([kind for kind in _OUTCOMES if kind is not ev.JobCompleted], self._on_ended),
            ev.JobReplayed: self._on_replayed,
            ev.JobCancelled: self._on_cancelled,
            ev.CancelRequested: self._on_cancel_requested,
            ev.QueueCleared: self._on_cleared,
            ev.JobReclaimed: self._on_reclaimed,
            ev.JobsPromoted: self._on_promoted,
            ev.JobsFetched: self._on_fetched,
            ev.WorkerStarted: self._on_started,
            ev.WorkerStopping: self._on_stopping,
            ev.WorkerStopped: self._on_stopped,
            ev.OperationDone: self._on_operation,
        }
        self._ends = [bus.subscribe(kind, handler) for kind, handler in handlers.items()]

    def close(self) -> None:
        """Listen no longer."""
        for end in self._ends:
            end()

    def _on_operation(self, event: ev.OperationDone) -> None:
        self._took = event.seconds

    def _began(self) -> int:
        return time.time_ns() - round(self._took * 1e9)

    # --- the end of an attempt -----------------------------------------------------------------------------------

    def _on_completed(self, event: ev.JobCompleted) -> None:
        if event.trace:
            self._on_ended(event)

    def _on_ended(self, event: AttemptEnded) -> None:
        run = self._attempts.take(event.trace) if event.trace else None
        failure = _failure(event)
        times = (self._began(), time.time_ns())
        if run is not None:
            context = self._attempts.finish(run, event, _OUTCOMES[type(event)], failure)
            ctx = run.ctx
            job = _Job(ctx.job_class, ctx.conversation, ctx.traceparent, ctx.previous_traceparent)
            self._after(event, failure, context, job, (run.end_ns, times[1]))
        elif failure is not None:
            self._lookup.ask(event.job_id, lambda found: self._unseen(event, failure, found, times))

    def _unseen(self, event: AttemptEnded, failure: Failure, found: Found, times: tuple[int, int]) -> None:
        """A failure before the handler was reached, or beside the worker: from what the event and the store say."""
        job = _Job(event.job_class or found.job_class, found.conversation, found.traceparent, "")
        context: SpanContext | None = None
        if event.attempt:  # a parked job that nobody could run has made none
            context = self._write_unseen(event, failure, found, job, times[0])
        self._after(event, failure, context, job, times)

    def _write_unseen(
        self, event: AttemptEnded, failure: Failure, found: Found, job: _Job, end_ns: int
    ) -> SpanContext:  # fmt: skip
        attributes = self._writer.attributes("process", event.queue, job.job_class, event.job_id, job.conversation)
        attributes["rf_jobs.job.attempt"] = event.attempt
        attributes["rf_jobs.job.outcome"] = _OUTCOMES[type(event)]
        attributes["rf_jobs.job.queue_wait_ms"] = round(event.wait * 1000)
        attributes["rf_jobs.worker.id"] = event.worker
        attributes["rf_jobs.sampling.reason"] = "failure"
        own = parent = None
        if found.attempt == event.attempt and found.token.partition(".")[0] == event.worker:  # else it has run since
            own, parent = self._attempt(event.job_id, found.token, event.attempt, event.wait, found)
        span = self._writer.start(
            self._writer.name("process", event.queue, job.job_class), SpanKind.CONSUMER, attributes=attributes,
            parent=None if parent is None else span_context(parent, found.tracestate),
            links=link_to(found.traceparent, "creation", event.job_id),
            ids=None if own is None else (own.trace_id, own.span_id),
            start_ns=end_ns - round(event.duration * 1e9), forced=True,
        )  # fmt: skip
        self._writer.fail(span, failure)
        self._writer.record_exception(span, failure, end_ns)
        span.end(end_ns)
        return span.get_span_context()

    def _after(
        self, event: AttemptEnded, failure: Failure | None, context: SpanContext | None, job: _Job, times: tuple[int, int]
    ) -> None:  # fmt: skip
        """What hangs below the attempt's span."""
        if isinstance(event, ev.JobRetried) and context is not None:
            self._retry(event, context, job, times[0])
        elif isinstance(event, ev.JobDied) and failure is not None:
            self._dead_letter(event, failure, context, job, times)

    def _retry(self, event: ev.JobRetried, parent: SpanContext, job: _Job, start_ns: int) -> None:
        attributes = self._writer.attributes("retry", event.queue, job.job_class, event.job_id, job.conversation)
        attributes["rf_jobs.job.retry_delay_ms"] = round(event.delay * 1000)
        attributes["rf_jobs.job.next_attempt"] = event.attempt + 1
        if event.error_type:
            attributes["error.type"] = self._writer.error_type(event.error_type)
        self._writer.write(
            self._writer.name("retry", event.queue, job.job_class), SpanKind.CLIENT, attributes=attributes,
            start_ns=start_ns, parent=parent,
        )  # fmt: skip

    def _dead_letter(
        self, event: ev.JobDied, failure: Failure, parent: SpanContext | None, job: _Job, times: tuple[int, int]
    ) -> None:  # fmt: skip
        attributes = self._writer.attributes("dead_letter", event.queue, job.job_class, event.job_id, job.conversation)
        attributes["rf_jobs.job.attempt"] = event.attempt
        attributes["rf_jobs.job.total_ms"] = round(event.total * 1000)
        links = link_to(job.creation, "creation", event.job_id)
        links += link_to(job.previous, "previous_attempt", event.job_id)
        self._writer.write(
            self._writer.name("dead_letter", event.queue, job.job_class), SpanKind.CLIENT, attributes=attributes,
            start_ns=times[0], end_ns=times[1], parent=parent, links=links, failure=failure,
        )  # fmt: skip

    # --- what operators do ---------------------------------------------------------------------------------------

    def _on_replayed(self, event: ev.JobReplayed) -> None:
        self._linked("replay", SpanKind.PRODUCER, event)

    def _on_cancelled(self, event: ev.JobCancelled) -> None:
        if event.stage != "cleared":  # thousands at once; one span says it, see QueueCleared
            self._linked("cancel", SpanKind.CLIENT, event, stage=event.stage)

    def _on_cancel_requested(self, event: ev.CancelRequested) -> None:
        self._linked("cancel", SpanKind.CLIENT, event, stage="running")

    def _linked(self, operation: str, kind: SpanKind, event: JobEvent, stage: str = "") -> None:
        """A span under whoever asked for it, linked to the job's dispatch."""
        parent, start_ns, end_ns = ambient(), self._began(), time.time_ns()

        def write(found: Found) -> None:
            name = event.job_class or found.job_class
            attributes = self._writer.attributes(operation, event.queue, name, event.job_id, found.conversation)
            if stage:
                attributes["rf_jobs.cancel.stage"] = stage
            self._writer.write(
                self._writer.name(operation, event.queue, name), kind, attributes=attributes, start_ns=start_ns,
                end_ns=end_ns, parent=parent, links=link_to(found.traceparent, "creation", event.job_id),
            )  # fmt: skip

        self._lookup.ask(event.job_id, write)

    def _on_cleared(self, event: ev.QueueCleared) -> None:
        attributes = self._writer.attributes("cancel", event.queue)
        attributes["messaging.batch.message_count"] = event.count
        attributes["rf_jobs.cancel.stage"] = "cleared"
        self._writer.write(
            f"cancel {event.queue}", SpanKind.CLIENT, attributes=attributes, start_ns=self._began(), parent=ambient()
        )

    # --- what workers do -----------------------------------------------------------------------------------------

    def _on_reclaimed(self, event: ev.JobReclaimed) -> None:
        start_ns, end_ns = self._began(), time.time_ns()

        def write(found: Found) -> None:
            name = event.job_class or found.job_class
            attributes = self._writer.attributes("reclaim", event.queue, name, event.job_id, found.conversation)
            attributes["rf_jobs.lease.owner"] = event.worker
            if event.attempt:
                attributes["rf_jobs.job.attempt"] = event.attempt
            if found.silent_ms is not None:
                attributes["rf_jobs.reclaim.silent_for_ms"] = found.silent_ms
            attributes["rf_jobs.job.crashes"] = event.crashes
            attributes["rf_jobs.job.outcome"] = "lost" if event.state == "ready" else event.state
            links = link_to(found.traceparent, "creation", event.job_id)
            if event.token:
                lost, _ = self._attempt(event.job_id, event.token, event.attempt, event.wait, found)
                links += link_to(text_of(*lost), "lost_attempt", event.job_id)
            self._writer.write(
                self._writer.name("reclaim", event.queue, name), SpanKind.INTERNAL, attributes=attributes,
                start_ns=start_ns, end_ns=end_ns, links=links, failure=Failure("WorkerLost", "", ""),
            )  # fmt: skip

        self._lookup.ask(event.job_id, write, worker=event.worker)

    def _attempt(
        self, job_id: str, token: str, attempt: int, waited: float, found: Found
    ) -> tuple[Traceparent, Traceparent | None]:
        """Where an attempt's span is, and its parent: its ids follow from the lease."""
        ids = attempt_ids(job_id, token)
        own, span_id = int(ids[:32], 16), int(ids[32:], 16)
        where, state = found.traceparent, found.tracestate
        creation = parse(where)
        if creation is not None and is_child(
            self._mode, attempt=attempt, waited=waited, tracestate=state, creation=where
        ):
            return Traceparent(creation.trace_id, span_id, creation.flags), creation
        return Traceparent(own, span_id, int(self._writer.sampling.keeps(own))), None

    def _on_promoted(self, event: ev.JobsPromoted) -> None:
        if not self._samples(anyway=event.lag_ms > LAGGED_MS):
            return
        attributes = self._writer.attributes("promote", event.queue)
        attributes["messaging.batch.message_count"] = event.count
        attributes["rf_jobs.promote.lag_ms.max"] = event.lag_ms
        self._writer.write(
            f"promote {event.queue}", SpanKind.INTERNAL, attributes=attributes, start_ns=self._began(), forced=False
        )

    def _on_fetched(self, event: ev.JobsFetched) -> None:
        if not event.count or not self._samples():
            return
        attributes = self._writer.attributes("receive", self._served)
        attributes["messaging.batch.message_count"] = event.count
        attributes["rf_jobs.worker.id"] = event.worker
        self._writer.write(
            f"receive {self._served}", SpanKind.CLIENT, attributes=attributes, start_ns=self._began(), forced=False
        )

    def _samples(self, *, anyway: bool = False) -> bool:
        """Whether to record a span that starts a trace of its own and belongs to no job."""
        sampling = self._writer.sampling
        return (anyway or sampling.keeps(random.getrandbits(64))) and sampling.take()

    def _on_started(self, event: ev.WorkerStarted) -> None:
        self._served = event.queues[0] if len(event.queues) == 1 else "*"
        self._worker_span("start worker", event.worker, self._since, {"rf_jobs.worker.slots": event.slots})

    def _on_stopping(self, event: ev.WorkerStopping) -> None:
        self._stopping = time.time_ns()

    def _on_stopped(self, event: ev.WorkerStopped) -> None:
        counts: dict[str, int] = {"rf_jobs.worker.drained": event.drained, "rf_jobs.worker.released": event.released}
        self._worker_span("shutdown worker", event.worker, self._stopping or time.time_ns(), counts)

    def _worker_span(self, name: str, worker: str, start_ns: int, more: dict[str, int]) -> None:
        attributes = {"messaging.system": SYSTEM, "rf_jobs.worker.id": worker, **more}
        self._writer.write(name, SpanKind.INTERNAL, attributes=attributes, start_ns=start_ns)


def _failure(event: AttemptEnded) -> Failure | None:
    """What makes this end an error: None for a success, and for what the handler or an operator wanted."""
    if isinstance(event, ev.AttemptLost):
        return Failure("LeaseLost", "the lease was lost while it ran", "")
    if not isinstance(event, FailedAttempt) or not isinstance(event, (ev.JobRetried, ev.JobDied, ev.JobCrashed)):
        return None
    if isinstance(event, ev.JobRetried) and event.reason in ("requested", ""):
        return None
    return Failure(event.error_type, event.message, event.traceback)
