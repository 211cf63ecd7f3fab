"""Spans under a supervisor: tracing starts in each child, whose exporting threads live there, and every child's spans arrive."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from rf_jobs import QueueManager
from tests.support.supervised import Tell, deploy, supervised, threads_of
from tests.support.waiting import until

PROCESSOR = "OtelBatchSpanRecordProcessor"


class Received:
    """What a collector was sent: the ids of the jobs whose attempts' spans came, whatever process sent them."""

    def __init__(self) -> None:
        self.jobs: set[str] = set()
        self.url = ""

    async def traces(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans if span.name == "process told"):
                self.jobs |= {a.value.string_value for a in span.attributes if a.key == "messaging.message.id"}
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def records(self, request: web.Request) -> web.Response:
        return web.Response(body=b"", content_type="application/x-protobuf")


@pytest.fixture
async def received() -> AsyncIterator[Received]:
    found = Received()
    app = web.Application()
    app.router.add_post("/v1/traces", found.traces)
    app.router.add_post("/v1/logs", found.records)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


async def run(manager: QueueManager, count: int) -> dict[str, tuple[int, list[str]]]:
    """Run so many jobs: by id the process and its threads."""
    handles = [await manager.dispatch(Tell()).handle() for _ in range(count)]
    results = {str(handle.id): await handle.result(30) for handle in handles}
    return {job_id: (pid, threads) for job_id, (_, pid, threads) in results.items()}


@pytest.mark.chaos
@pytest.mark.timeout(120)
async def test_every_childs_spans_arrive(redis_url: str, received: Received, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    env = {"RF_JOBS_TELEMETRY_FLUSH_SECONDS": "0.5", "RF_JOBS_TELEMETRY_OTLP_ENDPOINT": received.url}
    env |= {"RF_JOBS_TELEMETRY_SAMPLE_RATIO": "1", "RF_JOBS_TELEMETRY_METRICS": "false"}
    async with (
        QueueManager(redis_url) as manager,
        supervised(manager, tmp_path, "--processes", "2", "--max-concurrent-jobs", "3", env=env) as worker,
    ):
        pids = {w.pid for w in await worker.workers("running", 2)}
        ran: dict[str, tuple[int, list[str]]] = {}
        while {pid for pid, _ in ran.values()} != pids:
            ran |= await run(manager, 20)
        assert all(PROCESSOR in threads for _, threads in ran.values())
        assert threads_of(worker.program.pid) == 1, "the supervisor has none"
        await until(lambda: _has(received, set(ran)), "all attempts' spans have come, from both")

        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        successors = {w.pid for w in await worker.workers("running", 2, but=pids)}
        later: dict[str, tuple[int, list[str]]] = {}
        while {pid for pid, _ in later.values()} != successors:
            later |= await run(manager, 20)
        await until(lambda: _has(received, set(later)), "those of their successors too")
        last = await run(manager, 20)
    assert set(last) <= received.jobs, "what a child has when it ends is sent"


async def _has(received: Received, jobs: set[str]) -> bool:
    return jobs <= received.jobs
