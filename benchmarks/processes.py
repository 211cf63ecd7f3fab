"""Starting, watching and ending the programs of a peer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import psutil

from benchmarks.peer import ROOT, Command

STOP_SECONDS = 10.0
TAIL = 1500
MEGABYTE = 1 << 20


class ProgramFailedError(Exception):
    """A peer's program ended or said nonsense; with the end of what it wrote."""


@dataclass(frozen=True)
class Usage:
    """What a program and its children use; a worker with a supervisor is counted whole, except where it says not."""

    cpu_seconds: float
    rss_bytes: int
    worker_rss_bytes: int
    """Of its largest process, which is the one that runs the jobs."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Ours, without what would steer the measured programs: each runs from its own virtual environment."""
    ours = {
        key: value for key, value in os.environ.items() if not key.startswith(("RF_JOBS_", "VIRTUAL_ENV", "PYTHON"))
    }
    return {**ours, "PYTHONPATH": str(ROOT), **extra}


def ended(process: subprocess.Popen[Any]) -> None:
    """End a program that was started in a session of its own: first politely, then it and all its children."""
    family = _family(process.pid)
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        return [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


class Program:
    """A program under way; what it prints goes to a file that is shown when it fails."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.process = process
        self._log = log

    def usage(self) -> Usage:
        """Now; raises ``ProgramFailedError`` when it has ended."""
        self.check()
        cpu, sizes = 0.0, [0]
        for member in _family(self.process.pid):
            with contextlib.suppress(psutil.NoSuchProcess), member.oneshot():
                times = member.cpu_times()
                cpu += times.user + times.system
                sizes.append(member.memory_info().rss)
        return Usage(cpu, sum(sizes), max(sizes))

    def children(self) -> list[int]:
        """Process ids of what it started."""
        return [member.pid for member in _family(self.process.pid)[1:]]

    def kill(self) -> list[int]:
        """SIGKILL to it and all its children, as when a machine dies; answers with their process ids."""
        family = _family(self.process.pid)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGKILL)
        self.process.wait(STOP_SECONDS)
        return [member.pid for member in family]

    def check(self) -> None:
        if self.process.poll() is not None:
            raise ProgramFailedError(f"ended with {self.process.returncode}: {self.said()}")

    def said(self) -> str:
        """The end of its output."""
        self._log.seek(0)
        return self._log.read()[-TAIL:].strip()


@contextlib.contextmanager
def running(command: Command, extra: Mapping[str, str]) -> Iterator[Program]:
    """A program for as long as the block lasts."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command.argv,
            cwd=ROOT,
            env=environment({**command.env, **extra}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            yield Program(process, log)
        finally:
            ended(process)


class Client:
    """An enqueuing program that obeys: see ``apps/agent.py``."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process = process
        self._log = log
        self._hear()

    def do(self, what: str, **arguments: object) -> float:
        """Carry out one command; answers with the seconds it took there."""
        return float(self.ask(what, **arguments)["seconds"])

    def ask(self, what: str, **arguments: object) -> dict[str, Any]:
        """Carry out one command; answers with all that it found."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            raise ProgramFailedError(f"the enqueuing program ended: {self._log.read()[-TAIL:].strip()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextlib.contextmanager
def enqueuing(command: Command, extra: Mapping[str, str]) -> Iterator[Client]:
    """An enqueuing program for as long as the block lasts."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command.argv,
            cwd=ROOT,
            env=environment({**command.env, **extra}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        try:
            yield Client(process, log)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.stdout.close()
            ended(process)
