"""The supervisor's page: one port for the metrics and probes of all its children, in a process of its own.

The supervisor has no event loop, and it may wait for the server; so it opens the port, and a small process answers there. That
one may die and be started again: the port stays open meanwhile, and requests wait.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import WorkerError
from rf_jobs.words.timing import mono
from rf_jobs.worker.commission import Starter
from rf_jobs.worker.member import pause_after
from rf_jobs.worker.orders import OrderPipe
from rf_jobs.worker.roll import PageOrder, Roll

log = logging.getLogger("rf_jobs.supervisor")
TELL_SECONDS = 1.0
STOP_SECONDS = 5.0
HEALTHY_SECONDS = 10.0
MAX_PATH = 60
"""A socket's path may have about 100 characters, and the children's names come to this one."""


class Page:
    """Opens the port at once, and is there until ``close``. ``module`` is the program that answers: it inherits the listening
    socket and the end of a pipe on which lines come, a ``PageOrder`` and then a ``Roll`` each second."""

    def __init__(self, module: str, settings: Settings, host: str, port: int, starter: Starter) -> None:
        self._module = module
        self._settings = settings
        self._starter = starter
        self._listener = _listening(host, port)
        self.port: int = self._listener.getsockname()[1]
        self.folder = _private_folder()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: OrderPipe | None = None
        self._started = 0.0
        self._failures = 0
        self._start_at = 0.0
        self._told_at = 0.0
        self._told: list[str] = []
        log.info("metrics and probes of all processes on http://%s:%d", host, self.port)

    def readings(self, number: int) -> str:
        """Where the child of this number gives its metrics; '' where there are none."""
        return str(self.folder / str(number)) if self._settings.telemetry.metrics else ""

    def round(self, roll: Roll) -> None:
        """Keep the process alive and informed."""
        now = mono()
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process, now)
        if self._process is None and now >= self._start_at:
            self._start(now)
        summary = [*roll.troubles, *(f"{child.place} {child.pid} {child.serving}" for child in roll.children)]
        if self._pipe is not None and (now - self._told_at >= TELL_SECONDS or summary != self._told):
            if self._pipe.send(roll):
                self._told = summary
            self._told_at = now

    def _start(self, now: float) -> None:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                fds = self._listener.fileno(), theirs.fileno()
                self._process = self._starter.start(self._module, *map(str, fds), fds=fds)
        except OSError as error:
            ours.close()
            self._failures += 1
            self._start_at = now + pause_after(self._failures)
            log.error("the process of metrics and probes could not be started: %s", error)  # noqa: TRY400 (no traceback)
            return
        self._pipe, self._started, self._told_at = OrderPipe(ours), now, 0.0
        telemetry = self._settings.telemetry
        as_json = telemetry.log_format == "json"
        self._pipe.send(PageOrder(telemetry.metrics, telemetry.metric_namespace, as_json, str(self.folder)))

    def _ended(self, process: subprocess.Popen[bytes], now: float) -> None:
        self._failures = 0 if now - self._started > HEALTHY_SECONDS else self._failures + 1
        pause = pause_after(self._failures)
        log.error("the process of metrics and probes ended (exit code %s); again in %.1f s", process.returncode, pause)
        self._start_at = now + pause
        self._let_go()

    def _let_go(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        self._process, self._pipe = None, None

    def close(self) -> None:
        """End it, and give the port up."""
        process = self._process
        self._let_go()  # it ends when it sees that
        if process is not None:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error
        raise WorkerError(
            f"the worker cannot serve its metrics on {host}:{port}: {why};"
            " choose another http_port in [jobs.worker], 0 for any that is free"
        ) from None


def _private_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="rf-jobs-"))
    if len(str(folder)) > MAX_PATH:
        with contextlib.suppress(OSError):
            folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="rf-jobs-", dir="/tmp"))
    return folder
