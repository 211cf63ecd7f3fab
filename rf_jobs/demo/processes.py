"""The demo's own processes: workers and exporter, started as an operator would, and ended with the demo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from rf_jobs.demo.home import tracing

STOP_SECONDS = 15
_SETTINGS, _SHOP = "RF_JOBS_", "RF_JOBS_TEST_SHOP_"


class Programs:
    """Starts ``rf-jobs`` commands, each in a process group of its own; ``stop`` ends them all, and so does the end of this
    process, whatever its cause. Settings of the surroundings do not reach them: they get ``config`` alone."""

    def __init__(self, logs: Path, config: Path, shop: Mapping[str, str]) -> None:
        self._logs = logs
        plain = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
        places = {f"{_SHOP}{name}": value for name, value in shop.items()}
        near = {"no_proxy": "127.0.0.1,localhost"}  # the shop's servers are here, whatever proxy leads out
        self._environment = {**plain, **near, **tracing(), **places, f"{_SETTINGS}CONFIG": str(config)}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start ``rf-jobs COMMAND ARGUMENTS``; its output goes to a file."""
        mine = ("--exit-with-parent", str(os.getpid()))
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(self._logs / f"{name}.log", flags, 0o600), "wb") as log:
            process = subprocess.Popen(  # noqa: S603 (our own command)
                [sys.executable, "-m", "rf_jobs", command, *mine, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                umask=0o077,
            )
        self._running.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL a worker and all that it started, at once, as a machine that loses power would."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def kill_all(self) -> None:
        """SIGKILL all of them: for one who cannot wait."""
        for process in self._running:
            if process.poll() is None:
                self.kill(process)

    def stop(self) -> None:
        """SIGTERM all, wait, and kill what is left."""
        for process in self._running:
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill(process)


def belongs_to(pid: int, leader: subprocess.Popen[bytes]) -> bool:
    """Whether the process ``pid`` is in the group that ``leader`` leads."""
    try:
        return pid > 0 and os.getpgid(pid) == leader.pid
    except (ProcessLookupError, PermissionError):
        return False
