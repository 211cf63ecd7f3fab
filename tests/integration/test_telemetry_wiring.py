"""Telemetry as a process gets it: to a collector, over the worker's own port."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientSession, web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from rf_jobs import Job, JobContext, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.telemetry import providers, telemetry
from rf_jobs.words.config_settings import JobsSettings, TelemetrySettings
from rf_jobs.words.errors import ConfigError, WorkerError


class Wired(Job, queue="wired", max_attempts=1):
    fail: bool = False

    async def handle(self, ctx: JobContext) -> None:
        if self.fail:
            raise ValueError("no")


class Collector:
    """An OTLP receiver."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.logs: list[LogRecord] = []
        self.services: set[str] = set()
        self.url = ""

    async def traces(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            self.services |= {a.value.string_value for a in resource.resource.attributes if a.key == "service.name"}
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def records(self, request: web.Request) -> web.Response:
        sent = ExportLogsServiceRequest.FromString(await request.read())
        self.logs += [r for resource in sent.resource_logs for scope in resource.scope_logs for r in scope.log_records]
        return web.Response(body=b"", content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.traces)
    app.router.add_post("/v1/logs", found.records)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@asynccontextmanager
async def worker(url: str, *, http_port: int | None = None, **options: Any) -> AsyncGenerator[WorkerPool, None]:
    wanted = Settings(jobs=JobsSettings(redis_url=url), telemetry=TelemetrySettings(**options))
    async with QueueManager(wanted) as manager:
        config = (
            WorkerConfig(queues=["wired"]) if http_port is None else WorkerConfig(queues=["wired"], http_port=http_port)
        )
        pool = WorkerPool(config, manager)
        async with telemetry(manager, wanted.telemetry, pool=pool), pool:
            yield pool


async def until(pool: WorkerPool, kind: type[ev.Event], job: Wired) -> None:
    done = asyncio.Event()
    end = pool.manager.bus.subscribe(kind, lambda _: done.set())
    await pool.manager.dispatch(job)
    await asyncio.wait_for(done.wait(), 10)
    end()


async def test_spans_and_exceptions_reach_a_collector(redis_url: str, collector: Collector) -> None:
    async with worker(redis_url, otlp_endpoint=collector.url, sample_ratio=1.0, flush_seconds=60) as pool:
        await until(pool, ev.JobDied, Wired(fail=True))
    named = {span.name: span for span in collector.spans}
    assert {"start worker", "send wired", "process wired", "dead_letter wired", "shutdown worker"} <= set(named)
    assert collector.services == {"rf-jobs"}
    process = named["process wired"]
    assert process.parent_span_id == named["send wired"].span_id
    assert [link.span_id for link in process.links] == [named["send wired"].span_id]
    (record,) = collector.logs
    assert record.event_name == "messaging.process.exception"
    assert (record.trace_id, record.span_id) == (process.trace_id, process.span_id)
    facts = {a.key: a.value.string_value for a in record.attributes}
    assert facts["exception.type"] == "ValueError"
    assert facts["exception.message"] == "no"
    assert not [event for event in process.events if event.name == "exception"], "once is enough"


async def test_what_became_of_the_spans_is_counted(redis_url: str, collector: Collector) -> None:
    async with worker(redis_url, otlp_endpoint=collector.url, sample_ratio=1.0) as pool:
        await until(pool, ev.JobCompleted, Wired())
    async with QueueManager(redis_url) as manager:
        found = await manager.store.run(manager.store.commands.metrics())
    recorded = int(float(found['["rf_telemetry_spans_total","recorded"]']))
    assert recorded == len(collector.spans) > 3
    assert int(float(found['["rf_telemetry_spans_total","exported"]'])) == recorded
    exemplars_trace = next(span.trace_id.hex() for span in collector.spans if span.name == "process wired")
    async with QueueManager(redis_url) as manager:
        exemplars = await manager.store.run(manager.store.commands.exemplars())
    assert any(exemplars_trace in each for each in exemplars.values())


async def test_a_collector_that_hangs_does_not_hold_the_worker(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    released = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await released.wait()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setattr(providers, "EXPORT_SECONDS", 0.5)
    monkeypatch.setattr(providers.Providers.aclose, "__defaults__", (0.1,))
    caplog.set_level(logging.CRITICAL, "opentelemetry")
    caplog.set_level(logging.WARNING, "rf_jobs.telemetry")
    async with worker(redis_url, otlp_endpoint=f"http://127.0.0.1:{port}", sample_ratio=1.0) as pool:
        await until(pool, ev.JobCompleted, Wired())
    assert "gave up sending the last spans" in caplog.text
    released.set()
    server.close()
    for thread in [each for each in threading.enumerate() if each.name == "rf-jobs-spans"]:
        await asyncio.to_thread(thread.join, 10)


async def test_the_exporter_that_is_not_installed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.common.trace_encoder", None)
    with pytest.raises(ConfigError, match=r"http://x:4318.*pip install 'rf-jobs\[otlp\]'"):
        async with worker(redis_url, otlp_endpoint="http://x:4318"):
            pass


async def test_a_workers_own_page(redis_url: str) -> None:
    async with worker(redis_url, http_port=0, metric_namespace="shop") as pool, ClientSession() as session:
        assert pool.port > 0
        await until(pool, ev.JobCompleted, Wired())
        base = f"http://127.0.0.1:{pool.port}"
        async with session.get(f"{base}/readyz") as ready:
            assert ready.status == 200
        async with session.get(f"{base}/metrics") as answer:
            text = await answer.text()
        await pool.shutdown()
        async with session.get(f"{base}/readyz") as ready:
            assert (ready.status, await ready.text()) == (503, "the worker is not running\n")
    samples = {
        (s.name, s.labels.get("outcome")): s.value for f in text_string_to_metric_families(text) for s in f.samples
    }
    assert 'shop_rf_build_info{python="' in text
    assert samples["shop_jobs_processed_total", "success"] == 1
    assert samples["shop_jobs_processed_total", "dead"] == 0
    assert samples["process_resident_memory_bytes", None] > 0


async def test_a_taken_port_is_said_at_the_start(redis_url: str) -> None:
    async with worker(redis_url, http_port=0) as pool:
        with pytest.raises(WorkerError, match=f"127.0.0.1:{pool.port}"):
            async with worker(redis_url, http_port=pool.port):
                pass


async def test_everything_off_costs_nothing(redis_url: str) -> None:
    async with worker(redis_url, metrics=False, tracing=False) as pool:
        assert not pool.manager.middleware.wraps_runs
        for kind in (ev.JobCompleted, ev.JobStarted, ev.JobDispatched, ev.LoopLagged, ev.OperationDone):
            assert not pool.manager.bus.wants(kind)
        await until(pool, ev.JobCompleted, Wired())
