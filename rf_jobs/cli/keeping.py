"""A process that a command keeps beside itself: noticed when it ends, and started again."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable

import click

STOP_SECONDS = 10.0
FIRST_PAUSE_SECONDS = 0.5
PAUSE_CAP_SECONDS = 30.0
WELL_SECONDS = 10.0
"""One that lived so long did not fail at its start."""


class Kept:
    """Starts with ``watch``, from when on a thread waits for the process's end, and ends with ``close``. ``name`` is how a person
    would call it."""

    def __init__(self, name: str, start: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._name = name
        self._start = start
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self.process = start()
        self._thread = threading.Thread(target=self._watch, name="rf-jobs-kept", daemon=True)

    def watch(self) -> None:
        """From now on, say when it ends, and start it again: at once, then after pauses that double."""
        self._thread.start()

    def _watch(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            try:
                self.process.wait(WELL_SECONDS)
            except subprocess.TimeoutExpired:
                pause = FIRST_PAUSE_SECONDS
                continue
            if self._closing.is_set():
                return
            ended = f"{self._name} ended (exit code {self.process.returncode})"
            click.echo(f"{ended}; it is started again in {pause:g} s", err=True)
            if self._closing.wait(pause):
                return
            pause = min(PAUSE_CAP_SECONDS, pause * 2)
            with self._lock:
                if not self._closing.is_set():
                    self.process = self._start()

    def close(self) -> None:
        """End it: in order, or by force when it takes too long."""
        with self._lock:
            self._closing.set()
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
