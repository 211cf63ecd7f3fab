"""Every example of docs/cli.md is run as it stands, in order, in one folder."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rf_jobs.store.embedded import EmbeddedServer

PAGE = Path("docs/cli.md")
LONG = ("dev", "worker", "exporter")
"""Commands that run until they are told to stop."""
MAY_SAY_NO = ("doctor",)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def long_ones(url: str) -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.split()[1] in LONG]
    return [line for line in lines if line.split()[1] != "exporter" or importlib.util.find_spec("rf_jobs_exporter")]


@pytest.mark.timeout(300)
def test_the_examples_run(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    (tmp_path / "rf-jobs").write_text(f'#!/bin/sh\nexec {sys.executable} -m rf_jobs "$@"\n')
    (tmp_path / "rf-jobs").chmod(0o755)
    here = Path.cwd()
    env = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{here}:{here / 'exporters'}",
        "RF_JOBS_REDIS_URL": redis_url,
        "RF_JOBS_TELEMETRY_TRACING": "false",
        "RF_JOBS_TELEMETRY_METRICS": "false",
    }
    running = [
        subprocess.Popen(line.split(), cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
        for line in long_ones(redis_url)
    ]
    try:
        for block in blocks("sh"):
            lines = [line for line in block.splitlines() if line.split()[1] not in LONG]
            guarded = [f"{line} || test $? = 1" if line.split()[1] in MAY_SAY_NO else line for line in lines]
            done = subprocess.run(
                ["sh", "-e", "-c", "\n".join(guarded)],
                cwd=tmp_path,
                env=env,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, (block, done.stdout, done.stderr)
        for process in running:
            assert process.poll() is None, (process.args, process.stderr and process.stderr.read())
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
        for process in running:
            process.communicate(timeout=60)
        if (tmp_path / ".rf-jobs" / "server").exists():
            EmbeddedServer.start(tmp_path / ".rf-jobs" / "server").stop()
    assert [process.returncode for process in running] == [0] * len(running)


def test_every_command_is_described() -> None:
    from rf_jobs.cli.app import COMMANDS
    from rf_jobs.cli.exits import Exit

    text = PAGE.read_text()
    for name in COMMANDS:
        assert f"rf-jobs {name}" in text, name
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(int(code)) for code in Exit]
