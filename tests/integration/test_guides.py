"""The pages for people: their files and commands are run as they stand, in order, each page in a folder of its own; and what
they name is there."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.words.config import load_settings
from tests.support.commands import check_command
from tests.support.processes import wait_until

ROOT = Path(__file__).parents[2]
GUIDES = [
    *sorted((ROOT / "docs/guides").glob("*.md")),
    *sorted((ROOT / "docs/migrating").glob("*.md")),
    ROOT / "docs/troubleshooting.md",
]
PAGES = [ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONG = ("dev", "worker", "scheduler")
"""Commands that run until they are told to stop."""
ANOTHERS = ("py", "ruby", "php")
"""Code of other queues, beside ours, in docs/migrating."""
MAY_SAY_NO = ("doctor",)
PROGRAMS = {
    "rf-jobs": "-m rf_jobs",
    "python": "",
    "flask": "-m flask",
    "gunicorn": "-m gunicorn",
    "uvicorn": "-m uvicorn",
}
PORT = re.compile(r"\b80\d\d\b")
"""A port of a page; the reader uses a free one instead."""

named = pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each block of code."""
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


class Reader:
    """Does what a page says."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[str]] = []
        self.ports: dict[str, str] = {}
        (folder / "bin").mkdir()
        for name, what in PROGRAMS.items():
            (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
            (folder / "bin" / name).chmod(0o755)
        self.env = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'exporters'}",
            "RF_JOBS_REDIS_URL": redis_url,
            "RF_JOBS_TELEMETRY_TRACING": "false",
            "RF_JOBS_EXPORTER_PORT": "0",
            "RF_JOBS_WORKER_HTTP_PORT": "0",
        }

    def write(self, text: str) -> None:
        """A file, whose name stands in its first line."""
        name = re.match(r"# ([\w/-]+\.\w+)\n", text)
        assert name is not None, text
        (self.folder / name[1]).parent.mkdir(exist_ok=True)
        (self.folder / name[1]).write_text(text)

    def _on_free_ports(self, line: str) -> str:
        for port in PORT.findall(line):
            self.ports.setdefault(port, str(free_port()))
        return PORT.sub(lambda found: self.ports[found[0]], line)

    def enter(self, line: str) -> None:
        """One line at the terminal."""
        line = self._on_free_ports(line)
        if line.endswith(" &"):
            self._start(line.removesuffix(" &"))
            return
        word = line.split()[1]
        if word in LONG:
            process = subprocess.Popen(
                shlex.split(line), cwd=self.folder, env=self.env, stdout=subprocess.PIPE, text=True
            )
            self.running.append(process)
            if word == "dev":
                self._use_the_server_of(process)
            return
        done = subprocess.run(
            ["sh", "-c", line], cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=90, check=False
        )
        allowed = (0, 1) if word in MAY_SAY_NO else (0,)
        assert done.returncode in allowed, (line, done.stdout, done.stderr)

    def _start(self, line: str) -> None:
        """What goes on in the background; a server, until it listens."""
        process = subprocess.Popen(shlex.split(line), cwd=self.folder, env=self.env, text=True)
        self.running.append(process)
        ours = [port for port in self.ports.values() if re.search(rf"\b{port}\b", line)]

        def listens() -> bool:
            assert process.poll() is None, f"it has ended: {line}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", int(ours[0]))) == 0

        if ours:
            wait_until(listens, f"it listens: {line}")

    def _use_the_server_of(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for said in process.stdout:
            if found := re.search(r"export RF_JOBS_REDIS_URL=(\S+)", said):
                self.env["RF_JOBS_REDIS_URL"] = found[1]
                return
        pytest.fail("dev did not say where its server is")

    def close(self) -> None:
        for process in reversed(self.running):
            process.send_signal(signal.SIGINT)
        for process in self.running:
            process.communicate(timeout=60)
        if (self.folder / ".rf-jobs" / "server").exists():
            EmbeddedServer.start(self.folder / ".rf-jobs" / "server").stop()
        # uvicorn ends by the signal that it was sent.
        assert {process.returncode for process in self.running} <= {0, -signal.SIGINT}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def reader(folder: Path, redis_url: str) -> Generator[Reader]:
    one = Reader(folder, redis_url)
    try:
        yield one
    finally:
        one.close()


@named
@pytest.mark.timeout(300)
def test_a_guide_can_be_followed(page: Path, tmp_path: Path, redis_url: str) -> None:
    with reader(tmp_path, redis_url) as one:
        for language, text in blocks(page):
            if language == "sh":
                for line in text.splitlines():
                    one.enter(line)
            elif language in ("python", "toml"):
                one.write(text)
                if language == "toml":
                    load_settings(tmp_path / "rf-jobs.toml", environ={})
            elif language == "yaml":
                assert yaml.safe_load(text)["kind"]
            else:
                assert language in ("text", *ANOTHERS), f"who checks {language}?"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_the_prose_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in re.findall(r"`(rf-jobs [^`\n]+)`", prose):
        if "…" not in line and "..." not in line and not line.split()[1].isupper():
            check_command(line)


def test_messages_that_are_explained_are_said() -> None:
    said = "\n".join(path.read_text() for path in (ROOT / "rf_jobs").rglob("*.py"))
    table = re.findall(r"^\| `(.+?)` \|", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
    assert len(table) > 5
    for message in table:
        for part in re.split(r"\bX\b|…|RuntimeWarning:", message):
            assert part.strip() in said, message


def test_every_example_is_listed() -> None:
    listed = re.findall(r"\]\((\w+)\.py\)", (ROOT / "examples/README.md").read_text())
    there = [path.stem for path in (ROOT / "examples").glob("*.py") if path.stem not in ("__init__", "here")]
    assert sorted(listed) == sorted(there)


def test_every_decision_is_listed_by_its_title() -> None:
    listed = dict(re.findall(r"\]\((\d{4}-[\w-]+\.md)\) \| (.+) \|", (ROOT / "docs/decisions/README.md").read_text()))
    there = {path.name: path.read_text().splitlines()[0][2:] for path in (ROOT / "docs/decisions").glob("0*.md")}
    assert listed == there


def test_the_page_on_development_names_what_is_there() -> None:
    page, makefile = (ROOT / "docs/development.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make (\w+)`", page):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    for variable in re.findall(r"^\| `(RF_JOBS_TEST_\w+)`", page, re.MULTILINE):
        assert variable in tests, variable
    for folder in re.findall(r"`(tests/\w+)`", page):
        assert (ROOT / folder).is_dir(), folder
