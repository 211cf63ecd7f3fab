"""Where spans go: the application's own tracer provider, one of ours that sends to a collector, or nowhere.

Called in the process that records, after it was forked: a span processor's thread does not survive a fork.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry import _logs, trace
from opentelemetry._logs import LoggerProvider
from opentelemetry.trace import TracerProvider

from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import MetricStore
from rf_jobs.telemetry.lane import Lane
from rf_jobs.telemetry.posting import Exporter, Poster
from rf_jobs.telemetry.spans import SCHEMA_URL, SCOPE
from rf_jobs.words.config_settings import TelemetrySettings
from rf_jobs.words.errors import ConfigError
from rf_jobs.words.version import package_version

log = logging.getLogger("rf_jobs.telemetry")
EXPORT_SECONDS = 5.0
MAX_QUEUED_SPANS = 8192


@dataclass
class Providers:
    """What to record with. ``close`` sends what is left; it blocks."""

    tracer: TracerProvider
    logger: LoggerProvider | None
    close: Callable[[], None]
    lane: Lane | None = None
    """A faster way for the spans of attempts that went well, where nobody but the collector wants to see them."""

    async def aclose(self, patience: float = EXPORT_SECONDS) -> None:
        """``close``, for as long as ``patience``; a collector that does not answer must not hold the process."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def run() -> None:
            try:
                self.close()
            except Exception:  # an exporter may raise anything
                log.exception("the last spans could not be sent")
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=run, name="rf-jobs-spans", daemon=True).start()
        try:
            async with asyncio.timeout(patience):
                await done.wait()
        except TimeoutError:
            log.warning("gave up sending the last spans after %.0f s", patience)


def find_providers(
    settings: TelemetrySettings, cells: MetricStore, given: TracerProvider | None = None
) -> Providers | None:
    """The provider that was given, else the global one, else one for ``otlp_endpoint``; None where nothing is to be
    recorded. Raises ``ConfigError`` where the exporter is not installed."""
    if not settings.tracing:
        return None
    current = given or trace.get_tracer_provider()
    if not isinstance(current, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        logs = _global_logs()
        return Providers(current, logs, _flusher(current, logs))
    return None if settings.otlp_endpoint is None else _otlp(settings.otlp_endpoint, settings.flush_seconds, cells)


def _global_logs() -> LoggerProvider | None:
    current = _logs.get_logger_provider()
    # The API has no public name for "none was set".
    return None if type(current).__name__ in ("ProxyLoggerProvider", "NoOpLoggerProvider") else current


def _flusher(*providers: TracerProvider | LoggerProvider | None) -> Callable[[], None]:
    """They are the application's: send what is there, and leave them open."""

    def flush() -> None:
        for provider in providers:
            force = getattr(provider, "force_flush", None)
            if force is not None:
                force(int(EXPORT_SECONDS * 1000))

    return flush


def _otlp(endpoint: str, every: float, cells: MetricStore) -> Providers:
    try:
        from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs  # noqa: PLC0415 (an extra)
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"otlp_endpoint is {endpoint!r}, and what encodes spans for it is not installed ({error.name});"
            " run pip install 'rf-jobs[otlp]', or leave otlp_endpoint out"
        ) from None
    from opentelemetry.sdk._logs import LoggerProvider as SdkLoggerProvider  # noqa: PLC0415 (only when recording)
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult  # noqa: PLC0415
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON  # noqa: PLC0415

    base = endpoint.rstrip("/").removesuffix("/v1/traces")
    traces = Poster(f"{base}/v1/traces", "TRACES", timeout=EXPORT_SECONDS)
    records = Poster(f"{base}/v1/logs", "LOGS", timeout=EXPORT_SECONDS)
    results, told = (SpanExportResult.SUCCESS, SpanExportResult.FAILURE), _teller(cells)
    resource = Resource.create(_service_name())
    tracer = SdkTracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
    spans: Any = Exporter(traces, encode_spans, results, told)
    tracer.add_span_processor(BatchSpanProcessor(spans, MAX_QUEUED_SPANS, every * 1000))
    logger = SdkLoggerProvider(resource=resource, shutdown_on_exit=False)
    lines: Any = Exporter(records, encode_logs, results, lambda *_: None)  # its processor looks at no result
    logger.add_log_record_processor(BatchLogRecordProcessor(lines, every * 1000))
    facts = {key: str(value) for key, value in resource.attributes.items()}
    lane = Lane(traces, facts, (SCOPE, package_version(), SCHEMA_URL), every=every, told=told)

    def close() -> None:
        lane.close(2 * EXPORT_SECONDS)
        tracer.shutdown()
        logger.shutdown()

    return Providers(tracer, logger, close, lane)


def _teller(cells: MetricStore) -> Callable[[str, int], None]:
    """Counts what becomes of spans: exported, failed or dropped."""
    counters = {state: cells.counter(names.TELEMETRY_SPANS, state) for state in ("exported", "failed")}
    dropped = cells.counter(names.TELEMETRY_DROPPED, "span")

    def told(state: str, count: int) -> None:
        if state in counters:
            counters[state].value += count
        if state != "exported":
            dropped.value += count

    return told


def _service_name() -> dict[str, Any]:
    """Ours, unless the environment names the service."""
    named = os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {} if named else {"service.name": "rf-jobs"}
