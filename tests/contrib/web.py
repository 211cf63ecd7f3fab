"""Web servers of the tests: real ones, in processes of their own, on free ports."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.processes import process, wait_until


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def ask(url: str, *, method: str = "GET") -> Any:
    """The JSON of an answer."""
    with urlopen(Request(url, method=method), timeout=30) as answer:
        return json.load(answer)


@contextmanager
def serving(*command: str, port: int, log: Path, env: dict[str, str]) -> Generator[str]:
    """A server that listens on this port; its URL, once it answers."""
    with process(sys.executable, "-m", *command, log=log, env=env) as running:
        wait_until(lambda: _listens(port, running, log), "the web server listens", 60)
        yield f"http://127.0.0.1:{port}"


def _listens(port: int, running: subprocess.Popen[bytes], log: Path) -> bool:
    assert running.poll() is None, log.read_text()
    try:
        with urlopen(f"http://127.0.0.1:{port}/nothing-here", timeout=5):
            return True
    except HTTPError:
        return True
    except OSError:
        return False
