"""The programs of other projects that tests run. A missing one fails the test: nothing is skipped."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "redis-server": "redis-server",
}


def program(name: str) -> str:
    """The program's path."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(
            f"{name} is not on the PATH; install it (Debian: apt-get install {_PACKAGES[name]}) or run scripts/setup-test-tools"
        )
    return path


def run(
    name: str, *arguments: str | Path, cwd: Path | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run it to its end; its output is in the answer."""
    command = [program(name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd, input=stdin)
