from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rf_jobs.telemetry import probes
from rf_jobs.telemetry.probes import Probes
from rf_jobs.words.errors import WorkerError


class Worker:
    def __init__(self) -> None:
        self.stalled = ""
        self.asked: list[str] = []
        self.port = 0

    async def render(self, accept: str) -> tuple[bytes, str]:
        self.asked.append(accept)
        return b"x 1\n", "text/plain; version=0.0.4"

    async def ask(self, request: str | bytes, *, close: bool = False) -> tuple[str, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request.encode() if isinstance(request, str) else request)
        if close:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        return line.partition(" ")[2], dict(field.split(": ", 1) for field in fields), body

    async def get(self, path: str) -> tuple[str, bytes]:
        status, _, body = await self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
        return status, body


@pytest.fixture
async def worker() -> AsyncIterator[Worker]:
    served = Worker()
    server = Probes(lambda: served.stalled, served.render)
    served.port = await server.start("127.0.0.1", 0)
    yield served
    await server.aclose()


async def test_a_worker_that_fetches_is_ready(worker: Worker) -> None:
    assert await worker.get("/healthz") == ("200 OK", b"ok\n")
    assert await worker.get("/readyz") == ("200 OK", b"ok\n")
    worker.stalled = "no fetch was answered for 30 s"
    assert await worker.get("/readyz?verbose=1") == ("503 Service Unavailable", b"no fetch was answered for 30 s\n")
    assert await worker.get("/healthz") == ("200 OK", b"ok\n")


async def test_the_format_is_negotiated(worker: Worker) -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    status, headers, body = await worker.ask(f"GET /metrics HTTP/1.1\r\nACCEPT: {accept}\r\n\r\n")
    assert (status, body, worker.asked) == ("200 OK", b"x 1\n", [accept])
    assert headers["Content-Type"] == "text/plain; version=0.0.4"
    assert headers["Content-Length"] == "4"
    assert headers["Connection"] == "close"


async def test_head_has_no_body(worker: Worker) -> None:
    status, headers, body = await worker.ask("HEAD /metrics HTTP/1.0\r\n\r\n")
    assert (status, headers["Content-Length"], body) == ("200 OK", "4", b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ("POST /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("GET /other HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("GET /metrics HTTP/2\r\n\r\n", "400 Bad Request"),
        ("rubbish\r\n\r\n", "400 Bad Request"),
        (b"\xff\x00\r\n\r\n", "400 Bad Request"),
        ("GET / HTTP/1.1\r\nX: " + "y" * 20_000 + "\r\n\r\n", "431 Request Header Fields Too Large"),
    ],
)
async def test_what_is_not_a_request_of_ours(worker: Worker, request_: str | bytes, status: str) -> None:
    assert (await worker.ask(request_))[0] == status


async def test_a_slow_client_is_sent_away(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "REQUEST_SECONDS", 0.05)
    assert (await worker.ask("GET /healthz HTT"))[0] == "408 Request Timeout"


async def test_a_client_that_goes_away_is_no_matter(worker: Worker) -> None:
    assert (await worker.ask("GET /hea", close=True))[2] == b""
    assert (await worker.get("/healthz"))[0] == "200 OK"


async def test_too_many_at_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "MAX_CONNECTIONS", 0)
    assert (await worker.get("/healthz"))[0] == "503 Service Unavailable"


async def test_without_metrics_there_are_probes() -> None:
    served = Worker()
    server = Probes(lambda: "", None)
    served.port = await server.start("127.0.0.1", 0)
    try:
        assert (await served.get("/metrics"))[0] == "404 Not Found"
        assert (await served.get("/readyz"))[0] == "200 OK"
        with pytest.raises(WorkerError, match=rf"127.0.0.1:{served.port}.*choose another http_port"):
            await Probes(lambda: "", None).start("127.0.0.1", served.port)
    finally:
        await server.aclose()
