"""Writing spans: names, kinds, attributes, status and exception records as the span model says (docs/telemetry.md).

Needs the OpenTelemetry API alone; where the provider is the SDK's, spans get ids and times that were decided before, so
that a span which nobody thought worth recording can still be written once its attempt has failed.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from opentelemetry._logs import LoggerProvider, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TracerProvider,
    TraceState,
    get_current_span,
    set_span_in_context,
)

from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import MetricStore
from rf_jobs.telemetry.sampling import Sampling
from rf_jobs.telemetry.traceparent import Traceparent, parse

SCOPE = "rf_jobs"
SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SYSTEM = "rf_jobs"
OTHER = "_OTHER"
MAX_ERROR_TYPES = 200
MAX_LINKS = 128

Attributes = dict[str, str | int | float | bool]

# The messaging conventions know these operation types; ours that move a job between its states settle it.
_TYPES = {
    "send": "send", "process": "process", "receive": "receive", "replay": "send", "retry": "settle",
    "dead_letter": "settle", "cancel": "settle", "reclaim": "settle", "promote": "settle", "release": "settle",
}  # fmt: skip


def ambient() -> SpanContext | None:
    """Of the span that is open around here."""
    current = get_current_span().get_span_context()
    return current if current.is_valid else None


class _Given:
    """An id generator that gives out what was decided before."""

    def __init__(self, trace_id: int, span_id: int) -> None:
        self._trace_id = trace_id
        self._span_id = span_id

    def generate_trace_id(self) -> int:
        return self._trace_id

    def generate_span_id(self) -> int:
        return self._span_id

    def is_trace_id_random(self) -> bool:
        return True


@dataclass(frozen=True)
class Failure:
    """What went wrong, as the event tells it."""

    type: str
    message: str
    traceback: str


class SpanWriter:
    """Makes spans with one tracer. ``sampling`` is shared by all who decide; ``redact`` keeps exceptions' messages and
    tracebacks out; ``by_class`` names spans after classes instead of queues."""

    def __init__(
        self, provider: TracerProvider, logger_provider: LoggerProvider | None, sampling: Sampling, cells: MetricStore, *,
        version: str, redis_url: str, redact: bool, by_class: bool = False,
    ) -> None:  # fmt: skip
        self.sampling = sampling
        self._by_class = by_class
        self._tracer = provider.get_tracer(SCOPE, version, SCHEMA_URL)
        self._is_sdk = hasattr(self._tracer, "id_generator") and hasattr(self._tracer, "sampler")
        self._logger = logger_provider.get_logger(SCOPE, version, SCHEMA_URL) if logger_provider is not None else None
        self._also_events = os.environ.get("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "") == "logs/dup"
        self._redact = redact
        self._server = _server_address(redis_url)
        self._error_types: set[str] = set()
        self.recorded = cells.counter(names.TELEMETRY_SPANS, "recorded")
        self.sampled_out = cells.counter(names.TELEMETRY_SPANS, "sampled_out")
        self.dropped = cells.counter(names.TELEMETRY_DROPPED, "span")

    def name(self, operation: str, queue: str, job_class: str = "") -> str:
        """What a span is called: the operation, and the queue, or the class's short name where that is wanted and known."""
        short = job_class.rpartition(":")[2].rpartition(".")[2] if self._by_class else ""
        return f"{operation} {short or queue}"

    def attributes(
        self, operation: str, queue: str, job_class: str = "", job_id: str = "", conversation: str = ""
    ) -> Attributes:
        """What every span has from its start. A job without a ``conversation`` is one of its own."""
        found: Attributes = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": operation,
            "messaging.operation.type": _TYPES[operation],
            "messaging.destination.name": queue,
            **self._server,
        }
        if job_class:
            found["rf_jobs.job.class"] = job_class
        if job_id:
            found["messaging.message.id"] = job_id
            found["messaging.message.conversation_id"] = conversation or job_id
        return found

    def start(
        self, name: str, kind: SpanKind, *, attributes: Mapping[str, Any], parent: SpanContext | None = None,
        links: Sequence[Link] = (), ids: tuple[int, int] | None = None, start_ns: int | None = None, forced: bool = False,
    ) -> Span:  # fmt: skip
        """A span that was decided to be recorded; the user's sampler may still refuse it, unless ``forced``. ``ids``:
        trace (where it has no parent) and span."""
        context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        if forced:
            self.sampling.force()
        span = self._own_tracer(ids, forced=forced).start_span(
            name, context, kind, attributes, links=list(links[:MAX_LINKS]), start_time=start_ns,
            record_exception=False, set_status_on_exception=False,
        )  # fmt: skip
        if span.is_recording():
            self.recorded.value += 1
        return span

    def _own_tracer(self, ids: tuple[int, int] | None, *, forced: bool) -> Tracer:
        if not self._is_sdk or (ids is None and not forced):
            return self._tracer
        # A copy for one span: it shares the processors, and no other thread sees the ids or the sampler.
        tracer: Any = copy.copy(self._tracer)
        if ids is not None:
            tracer.id_generator = _Given(*ids)
        if forced:
            from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON  # noqa: PLC0415 (loaded: it is the SDK's)

            tracer.sampler = tracer.sampler if tracer.sampler is ALWAYS_OFF else ALWAYS_ON
        own: Tracer = tracer
        return own

    def write(
        self, name: str, kind: SpanKind, *, attributes: Mapping[str, Any], start_ns: int, end_ns: int | None = None,
        parent: SpanContext | None = None, links: Sequence[Link] = (), failure: Failure | None = None, forced: bool = True,
    ) -> Span:  # fmt: skip
        """A whole span, after the fact."""
        span = self.start(
            name, kind, attributes=attributes, parent=parent, links=links, start_ns=start_ns, forced=forced
        )
        if failure is not None:
            self.fail(span, failure)
        span.end(end_ns or max(time.time_ns(), start_ns))
        return span

    def error_type(self, name: str) -> str:
        """The class's name, as long as there are not too many of them."""
        if name not in self._error_types:
            if len(self._error_types) >= MAX_ERROR_TYPES:
                return OTHER
            self._error_types.add(name)
        return name or OTHER

    def fail(self, span: Span, failure: Failure) -> None:
        """Status and ``error.type``; never the message, which may hold anything."""
        kind = self.error_type(failure.type)
        span.set_status(Status(StatusCode.ERROR, kind))
        span.set_attribute("error.type", kind)

    def record_exception(self, span: Span, failure: Failure, at_ns: int) -> None:
        """The exception, as a log record with the span's ids; as a span event too where asked for, or where nobody
        takes log records."""
        facts = {"exception.type": failure.type}
        if not self._redact:
            facts["exception.message"] = failure.message
            if failure.traceback:
                facts["exception.stacktrace"] = failure.traceback
        if self._logger is not None:
            self._logger.emit(
                timestamp=at_ns,
                context=set_span_in_context(span, Context()),
                severity_number=SeverityNumber.ERROR,
                severity_text="ERROR",
                body=failure.type if self._redact else f"{failure.type}: {failure.message}",
                attributes=facts,
                event_name="messaging.process.exception",
            )
        if self._logger is None or self._also_events:
            span.add_event("exception", facts, at_ns)


def span_context(where: Traceparent, state: str = "", *, remote: bool = True) -> SpanContext:
    """A traceparent as the API wants it."""
    trace_state = TraceState.from_header([state]) if state else None
    return SpanContext(where.trace_id, where.span_id, remote, TraceFlags(where.flags), trace_state)


def link_to(traceparent: str, kind: str, job_id: str = "") -> list[Link]:
    """A link, or none where there is nothing to link to."""
    where = parse(traceparent)
    if where is None:
        return []
    attributes = {"rf_jobs.link.kind": kind}
    if job_id:
        attributes["messaging.message.id"] = job_id
    return [Link(span_context(where), attributes)]


def _server_address(url: str) -> Attributes:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return {"server.address": unquote(parts.path)}
    try:
        port = parts.port
    except ValueError:
        port = None
    return {"server.address": parts.hostname or "localhost", "server.port": port or 6379}
