"""Every example of docs/cli.md is run as it stands, in order, in one folder."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from rf_jobs.store.embedded import EmbeddedServer
from tests.support.processes import ROOT, process, said

PAGE = ROOT / "docs" / "cli.md"
LONG = {"dev": "serves", "worker": "serves", "exporter": "metrics of", "scheduler": "runs, with"}
"""Commands that run until they are told to stop, and what they say once they do."""
MAY_SAY_NO = ("doctor",)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def long_ones() -> list[str]:
    """On free ports: somebody else may use those of the page."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.split()[1] in LONG]
    return [re.sub(r"--port \d+", "--port 0", line) for line in lines]


@pytest.mark.timeout(300)
def test_the_examples_run(tmp_path: Path, redis_url: str) -> None:
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    for name, what in (("rf-jobs", "-m rf_jobs"), ("python", "")):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
        (tmp_path / name).chmod(0o755)
    env = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'exporters'}",
        "RF_JOBS_REDIS_URL": redis_url,
        "RF_JOBS_TELEMETRY_TRACING": "false",
        "RF_JOBS_TELEMETRY_METRICS": "false",
    }
    with ExitStack() as stack:
        stack.callback(stop_server, tmp_path / ".rf-jobs" / "server")
        running = []
        for number, line in enumerate(long_ones()):
            log = tmp_path / f"{number}.log"
            running.append(
                (stack.enter_context(process(*shlex.split(line), log=log, env=env, cwd=tmp_path)), line, log)
            )
        for block in blocks("sh"):
            lines = [line for line in block.splitlines() if line.split()[1] not in LONG]
            guarded = [f"{line} || test $? = 1" if line.split()[1] in MAY_SAY_NO else line for line in lines]
            done = subprocess.run(
                ["sh", "-e", "-c", "\n".join(guarded)],
                cwd=tmp_path,
                env={**os.environ, **env},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, (block, done.stdout, done.stderr)
        for program, line, log in running:
            said(program, log, LONG[line.split()[1]])
        for program, _, _ in running:
            program.send_signal(signal.SIGINT)
        for program, line, log in running:
            assert program.wait(60) == 0, (line, log.read_text())


def stop_server(directory: Path) -> None:
    """For the case that the test failed: the embedded server outlives its starter."""
    if directory.exists():
        EmbeddedServer.start(directory).stop()


def test_every_command_is_described() -> None:
    from rf_jobs.cli.app import COMMANDS
    from rf_jobs.cli.exits import Exit

    text = PAGE.read_text()
    for name in COMMANDS:
        assert f"rf-jobs {name}" in text, name
    assert re.findall(r"^\| (\d+) \|", text, re.MULTILINE) == [str(int(code)) for code in Exit]
