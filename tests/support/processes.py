"""Our own programs as processes, ended with the test whatever happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

ROOT = Path(__file__).parents[2]
_PATH = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "exporters")])}
T = TypeVar("T")


def wait_until(look: Callable[[], T | None], what: str, timeout: float = 30.0) -> T:
    """Look again every 50 ms until what is seen is true, and answer with it; fails with ``what``."""
    give_up = time.monotonic() + timeout
    while not (seen := look()):
        if time.monotonic() > give_up:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        time.sleep(0.05)
    return seen


def fetch(url: str, timeout: float = 5.0) -> str:
    """A page's text; '' while it can't be had."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


@contextmanager
def process(
    *command: str | Path, log: Path, env: dict[str, str] | None = None, cwd: Path = ROOT, stdin: int | None = None
) -> Generator[subprocess.Popen[bytes]]:
    """A process whose output goes to ``log``; SIGTERM at the end, SIGKILL if that is not enough."""
    with log.open("wb") as output:
        running = _start([str(part) for part in command], output, env or {}, cwd, stdin)
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(15)
            except subprocess.TimeoutExpired:
                running.kill()
                running.wait()


def _start(
    command: list[str], output: IO[bytes], env: dict[str, str], cwd: Path, stdin: int | None
) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **_PATH, **env}
    return subprocess.Popen(command, stdin=stdin, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=cwd)


def said(running: subprocess.Popen[bytes], log: Path, pattern: str) -> str:
    """What the pattern's group (or the whole of it) is in the process's log, once it is there. Fails when it ends first."""

    def look() -> re.Match[str] | None:
        found = re.search(pattern, log.read_text())
        assert found or running.poll() is None, f"it ended before it said {pattern!r}: {log.read_text()}"
        return found

    found = wait_until(look, f"{pattern!r} in {log.name}", 60)
    return found[found.re.groups and 1]


def in_fresh_interpreter(code: str, *arguments: str) -> str:
    """What the code prints in a process of its own, without the threads and the state of this one. It is killed, with
    its forked children, when it takes too long."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    environment = {**os.environ, **_PATH}
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    try:
        output, errors = running.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, errors
    return output


def rf_jobs(*arguments: str) -> list[str]:
    """The command line of ``rf-jobs`` with the interpreter that runs the tests."""
    return [sys.executable, "-m", "rf_jobs", *arguments]
