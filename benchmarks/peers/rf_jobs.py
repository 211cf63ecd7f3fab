"""rf-jobs itself, three times: without telemetry, with metrics (the default of a worker), with every job traced too."""

from __future__ import annotations

import importlib.metadata
import sys
import threading
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.peer import Command, Peer
from rf_jobs.store.keys import Keys

if TYPE_CHECKING:
    from redis import Redis

QUEUE = "bench"
IMPORTS = "benchmarks.apps.rf_jobs_app"
OFF = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}
METRICS = {"RF_JOBS_TELEMETRY_METRICS": "true", "RF_JOBS_TELEMETRY_TRACING": "false"}
TRACED = {
    "RF_JOBS_TELEMETRY_METRICS": "true",
    "RF_JOBS_TELEMETRY_TRACING": "true",
    "RF_JOBS_TELEMETRY_SAMPLE_RATIO": "1.0",
    "RF_JOBS_TELEMETRY_MAX_SPANS_PER_SECOND": "1000000000",  # its cap would spare us most of the work
}


class Collector:
    """Takes OTLP posts and throws them away: the far end of the traced variant's spans, in the driver's process."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"


@cache
def collector() -> Collector:
    """The one of this run."""
    return Collector()


def worker_command(redis_url: str, imports: str = IMPORTS, *, concurrency: int = 100) -> list[str]:
    """``rf-jobs worker`` with one supervised process; its child is the worker that is measured."""
    # fmt: off
    return [
        str(Path(sys.executable).parent / "rf-jobs"), "worker", imports, "--queues", QUEUE,
        "--workers", "1", "--max-concurrent-jobs", str(concurrency), "--redis-url", redis_url,
    ]
    # fmt: on


def unfinished(server: Redis, queue: str = QUEUE) -> int:
    """Jobs that are ready or running: the scheduled, blocked and parked ones of this benchmark are none."""
    keys = Keys()
    pipe = server.pipeline(transaction=False)
    pipe.zcard(keys.of("ready", queue))
    pipe.zcard(keys.of("running", queue))
    return sum(cast("list[int]", pipe.execute()))


class RfJobs(Peer):
    """One variant."""

    bulk = True
    pings = True
    scale = 10
    probes = 2

    def __init__(self, name: str, telemetry: dict[str, str]) -> None:
        self.name = name
        self._telemetry = telemetry
        if telemetry is TRACED:
            self._telemetry = {**telemetry, "RF_JOBS_TELEMETRY_OTLP_ENDPOINT": collector().url}

    def client(self) -> Command:
        return Command([sys.executable, "-m", IMPORTS], self._telemetry)

    def worker(self, redis_url: str) -> Command:
        return Command(worker_command(redis_url), self._telemetry)

    def remaining(self, server: Redis) -> int:
        return unfinished(server)

    def versions(self) -> dict[str, str]:
        return {name: importlib.metadata.version(name) for name in ("rf-jobs", "redis", "hiredis", "uvloop", "msgspec")}
