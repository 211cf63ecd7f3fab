"""Our own programs as processes, ended with the test whatever happens."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(holds: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Look again every 50 ms until ``holds`` is true; fails with ``what``."""
    give_up = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.05)


def fetch(url: str, timeout: float = 5.0) -> str:
    """A page's text; '' while it can't be had."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


@contextmanager
def process(*command: str | Path, log: Path, env: dict[str, str] | None = None) -> Generator[subprocess.Popen[bytes]]:
    """A process whose output goes to ``log``; SIGTERM at the end, SIGKILL if that is not enough."""
    with log.open("wb") as output:
        running = _start([str(part) for part in command], output, env or {})
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _start(command: list[str], output: IO[bytes], env: dict[str, str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)


def rf_jobs(*arguments: str) -> list[str]:
    """The command line of ``rf-jobs`` with the interpreter that runs the tests."""
    return [sys.executable, "-m", "rf_jobs", *arguments]
