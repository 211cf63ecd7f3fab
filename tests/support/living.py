"""Which processes live in a folder: those that a command started there, and theirs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil


def living_in(folder: Path) -> list[int]:
    """Processes whose working directory is this folder, or one below it."""
    found = []
    for each in psutil.process_iter():
        try:
            if Path(each.cwd()).is_relative_to(folder) and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each.pid)
        except psutil.Error:
            continue
    return found


def kill_those_in(folder: Path) -> None:
    """For the end of a test that failed."""
    for pid in living_in(folder):
        os.kill(pid, signal.SIGKILL)
