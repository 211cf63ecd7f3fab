"""OTLP posts to a real HTTP server that is slow, busy, strict or gone."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rf_jobs.telemetry import posting
from rf_jobs.telemetry.posting import Exporter, Poster


class Server:
    def __init__(self) -> None:
        self.answers: list[int] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                owner.headers.append(dict(self.headers))
                owner.bodies.append(gzip.decompress(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(owner.answers.pop(0) if owner.answers else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                return

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1/traces"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(posting, "FIRST_PAUSE_SECONDS", 0.01)
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def test_the_environments_headers_go_along(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=general")
    assert Poster(server.url, "LOGS", timeout=5).post(b"x")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "api-key=s%20ecret,x-tenant=7")
    assert Poster(server.url, "TRACES", timeout=5).post(b"spans")
    first, second = ({name.lower(): value for name, value in each.items()} for each in server.headers)
    assert first["api-key"] == "general"
    assert (second["api-key"], second["x-tenant"]) == ("s ecret", "7")
    assert second["content-type"] == "application/x-protobuf"
    assert server.bodies == [b"x", b"spans"]


def test_a_busy_collector_is_asked_again(server: Server) -> None:
    server.answers = [503, 429]
    assert Poster(server.url, "TRACES", timeout=5).post(b"x")
    assert len(server.bodies) == 3


def test_a_refusal_is_final(server: Server) -> None:
    server.answers = [400]
    assert not Poster(server.url, "TRACES", timeout=5).post(b"x")
    assert len(server.bodies) == 1


def test_a_collector_that_stays_busy_or_is_gone_costs_the_batch(server: Server) -> None:
    server.answers = [503] * 9
    told: list[tuple[str, int]] = []

    class Message:
        def SerializeToString(self) -> bytes:  # noqa: N802 (protobuf's name)
            return b"x"

    exporter = Exporter(
        Poster(server.url, "TRACES", timeout=5), lambda batch: Message(), ("ok", "failed"), lambda *a: told.append(a)
    )
    assert exporter.export([1, 2]) == "failed"
    assert len(server.bodies) == posting.TRIES
    server.answers = []
    assert exporter.export([3]) == "ok"
    assert told == [("failed", 2), ("exported", 1)]
    gone = Poster("http://127.0.0.1:9/v1/traces", "TRACES", timeout=1)
    assert not gone.post(b"x")


def test_after_close_there_is_one_try(server: Server) -> None:
    server.answers = [503] * 9
    poster = Poster(server.url, "TRACES", timeout=5)
    poster.close()
    assert not poster.post(b"x")
    assert len(server.bodies) == 1
