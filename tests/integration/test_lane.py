"""The fast lane writes what the SDK would have written: both are sent to a real receiver and read with OTLP's own types."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from rf_jobs import Job, JobContext, QueueManager, WorkerPool
from rf_jobs.telemetry import lane, telemetry
from rf_jobs.words.config_settings import TelemetrySettings


class Traced(Job, queue="traced"):
    fail: bool = False

    async def handle(self, ctx: JobContext) -> None:
        if self.fail and ctx.attempt == 1:
            raise ValueError("once")

    def backoff(self) -> float:
        return 0.01


class Receiver:
    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if self.path == "/v1/traces":
                    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                        owner.resources.append({a.key: a.value.string_value for a in resource.resource.attributes})
                        for scope in resource.scope_spans:
                            assert scope.scope.name == "rf_jobs"
                            owner.spans += scope.spans
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    yield running
    running.server.shutdown()
    running.server.server_close()


def facts(span: Span) -> dict[str, Any]:
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}


@pytest.mark.parametrize("mode", ["child", "link"])
async def test_a_success_goes_by_the_lane_and_a_failure_by_the_sdk(
    redis_url: str, receiver: Receiver, mode: Any
) -> None:
    settings = TelemetrySettings(sample_ratio=1.0, otlp_endpoint=receiver.url, flush_seconds=0.2, trace=mode)
    async with QueueManager(redis_url) as manager:
        pool = WorkerPool(manager=manager)
        pool.config = pool.config.queues(["traced"])
        pool = WorkerPool(pool.config, manager)
        async with telemetry(manager, settings, pool=pool), pool:
            await manager.dispatch(Traced(fail=True)).result(10)
    sent = {span.name: span for span in receiver.spans}["send traced"]
    failed, good = sorted(
        (s for s in receiver.spans if s.name == "process traced"), key=lambda s: s.start_time_unix_nano
    )
    assert facts(failed)["rf_jobs.job.outcome"] == "retry"
    assert facts(good)["rf_jobs.job.outcome"] == "success"
    assert facts(good).keys() == facts(failed).keys() - {"error.type"}
    for key in (
        "messaging.system",
        "messaging.message.id",
        "messaging.destination.name",
        "rf_jobs.job.class",
        "rf_jobs.worker.id",
    ):
        assert facts(good)[key] == facts(failed)[key]
    assert (good.kind, len(good.trace_id), len(good.span_id)) == (failed.kind, 16, 8)
    assert [e.name for e in good.events] == [e.name for e in failed.events if e.name != "exception"]
    kinds = [a.value.string_value for link in good.links for a in link.attributes if a.key == "rf_jobs.link.kind"]
    assert kinds == ["creation", "previous_attempt"]
    assert good.links[0].span_id == sent.span_id
    assert good.links[1].span_id == failed.span_id
    assert good.flags & 0xFF == 1
    assert (good.parent_span_id == sent.span_id, good.trace_id == sent.trace_id) == (
        (True, True) if mode == "child" else (False, False)
    )
    assert good.start_time_unix_nano <= good.end_time_unix_nano
    assert all(resource["service.name"] == "rf-jobs" for resource in receiver.resources)


@given(
    st.text(max_size=300), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.booleans(),
    st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**63),
)  # fmt: skip
def test_whatever_is_encoded_reads_back(
    text: str, number: int, real: float, flag: bool, trace: int, own: int, parent: int, at: int
) -> None:
    rest = [
        lane.attribute("t", text),
        lane.attribute("n", number),
        lane.attribute("r", real),
        lane.attribute("f", flag),
    ]
    rest += [lane.event(text, at), lane.link(trace, own, {"k": text}, sampled=flag)]
    body = lane.delimited(
        1, lane.delimited(2, lane.span((trace, own), parent, lane.named(text), at, at + 5, rest, text))
    )
    [span] = ExportTraceServiceRequest.FromString(body).resource_spans[0].scope_spans[0].spans
    assert facts(span) == {"t": text, "n": number, "r": real, "f": flag}
    assert (int.from_bytes(span.trace_id), int.from_bytes(span.span_id), int.from_bytes(span.parent_span_id)) == (
        trace,
        own,
        parent,
    )
    assert (span.name, span.kind, span.trace_state) == (text, Span.SPAN_KIND_CONSUMER, text)
    assert (span.start_time_unix_nano, span.end_time_unix_nano, span.events[0].time_unix_nano) == (at, at + 5, at)
    assert (span.links[0].span_id, bool(span.links[0].flags & 1), span.events[0].name) == (span.span_id, flag, text)
