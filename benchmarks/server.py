"""The private Redis server of a measurement: fresh, without persistence, on a free port of the loopback."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis
from redis.exceptions import ConnectionError as NotYet

from benchmarks.processes import ended

START_SECONDS = 10.0


def find_server(explicit: str | None = None) -> str:
    """The server program: ``--server``, else one on the PATH, else the embedded one that rf-jobs' tests use."""
    if explicit:
        found = shutil.which(explicit)
        if found is None:
            raise SystemExit(f"--server: {explicit!r} is no program; name a redis-server or valkey-server")
        return found
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    from rf_jobs.store.embedded_process import find_server_binary  # noqa: PLC0415 - only where there is no other

    return str(find_server_binary())


@dataclass(frozen=True)
class Reading:
    """The server's own account at one moment."""

    cpu_seconds: float
    commands: int
    memory_bytes: int


class Server:
    """A running server; ``redis`` is the driver's connection, whose few commands are subtracted from what is counted."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Redis = Redis.from_url(url, decode_responses=True)

    def read(self) -> Reading:
        """CPU of all its threads, commands so far (those that scripts call included), and memory in use."""
        info = self.redis.info("all")
        return Reading(
            cpu_seconds=info["used_cpu_user"] + info["used_cpu_sys"],
            commands=info["total_commands_processed"],
            memory_bytes=info["used_memory"],
        )

    def version(self) -> str:
        info = self.redis.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get('valkey_version', info['redis_version'])}"


@contextlib.contextmanager
def private_server(program: str) -> Iterator[Server]:
    """Start one, and end it with everything in it."""
    with tempfile.TemporaryDirectory(prefix="rf-jobs-bench-") as folder:
        port = _free_port()
        # fmt: off
        argv = [
            program, "--bind", "127.0.0.1", "--port", str(port), "--dir", folder,
            "--save", "", "--appendonly", "no", "--daemonize", "no", "--loglevel", "warning",
        ]
        # fmt: on
        with (Path(folder) / "server.log").open("w+") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
            server = Server(f"redis://127.0.0.1:{port}/0")
            try:
                _until_up(server, process, log)
                yield server
            finally:
                server.redis.close()
                ended(process)


def _until_up(server: Server, process: subprocess.Popen[bytes], log: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(NotYet):
            server.redis.ping()
            return
        time.sleep(0.01)
    log.seek(0)
    raise RuntimeError(f"the server did not start within {START_SECONDS:.0f} s: {log.read()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return cast("int", probe.getsockname()[1])
