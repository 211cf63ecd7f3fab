"""However a job is dispatched, the exporter's count of dispatched jobs is the ledger's."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.processes import fetch, process, rf_jobs, said, wait_until

JOBS = """
from rf_jobs import Job, JobContext, Queue

class Leaf(Job, name="m:Leaf", queue="leaves"):
    how: str = "cli"

    async def handle(self, ctx: JobContext) -> None: ...

class Tree(Job, name="m:Tree", queue="trees"):
    async def handle(self, ctx: JobContext) -> None:
        await Queue.dispatch(Leaf(how="one"))
        await Queue.dispatch_many([Leaf(how="many"), Leaf(how="many")])

class Shrub(Job, name="m:Shrub", queue="trees"):
    def handle(self, ctx: JobContext) -> None:
        Queue.dispatch(Leaf(how="thread")).sync()

class Rotten(Job, name="m:Rotten", queue="trees", max_attempts=1):
    async def handle(self, ctx: JobContext) -> None:
        raise ValueError("rotten")
"""
CONFIGURED = """
from metered_jobs import *
from rf_jobs import configure
configure("redis://127.0.0.1:1/0")
"""


class Folder:
    """Runs commands in a folder that has the jobs."""

    def __init__(self, path: Path, url: str, stack: ExitStack) -> None:
        self.path = path
        self.env = {**os.environ, "RF_JOBS_REDIS_URL": url, "RF_JOBS_TELEMETRY_FLUSH_SECONDS": "0.2"}
        self._stack = stack
        self.client = stack.enter_context(redis.Redis.from_url(url, decode_responses=True))

    def run(self, *args: str, code: int = 0) -> str:
        done = subprocess.run(
            rf_jobs(*args), cwd=self.path, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
        return done.stdout.strip()

    def start(self, name: str, words: str, *args: str) -> tuple[subprocess.Popen[bytes], str]:
        log = self.path / f"{name}.log"
        running = self._stack.enter_context(process(*rf_jobs(*args), log=log, env=self.env, cwd=self.path))
        return running, said(running, log, words)

    def ledger(self, event: str) -> int:
        queues: list[dict[str, Any]] = json.loads(self.run("queues", "--json"))["queues"]
        return sum(queue["ledger"].get(event, 0) for queue in queues)


@pytest.fixture
def folder(tmp_path: Path, redis_url: str) -> Iterator[Folder]:
    (tmp_path / "metered_jobs.py").write_text(JOBS)
    (tmp_path / "configured_jobs.py").write_text(CONFIGURED)
    with ExitStack() as stack:
        yield Folder(tmp_path, redis_url, stack)


def counted(page: str, name: str) -> int:
    values = re.findall(rf"^{name}\{{[^}}]*\}} (\S+)", fetch(page), re.MULTILINE)
    return round(sum(map(float, values)))


def test_dispatches_by_command_and_by_handlers_are_counted(folder: Folder) -> None:
    for _ in range(2):
        folder.run("dispatch", "Leaf", "--import", "metered_jobs")
    folder.run("dispatch", "Tree", "--import", "metered_jobs")
    folder.run("dispatch", "Shrub", "--import", "metered_jobs")
    folder.start("worker", "serves", "worker", "metered_jobs", "--queues", "trees,leaves")
    page = folder.start("exporter", r"metrics of \S+ on (\S+)", "exporter", "--port", "0", "--cache-seconds", "0")[1]
    wait_until(lambda: folder.ledger("completed") == 8, "all jobs have run")
    assert folder.ledger("dispatched") == 8
    wait_until(lambda: counted(page, "jobs_dispatched_total") >= 8, "the flush")
    assert counted(page, "jobs_dispatched_total") == 8


def test_what_commands_do_to_jobs_is_counted(folder: Folder) -> None:
    cancelled = folder.run("dispatch", "Leaf", "--import", "metered_jobs")
    folder.run("jobs", "cancel", cancelled)
    rotten = folder.run("dispatch", "Rotten", "--import", "metered_jobs")
    worker, _ = folder.start("worker", "serves", "worker", "metered_jobs", "--queues", "trees,leaves")
    wait_until(lambda: folder.ledger("dead") == 1, "it is dead")
    worker.send_signal(signal.SIGTERM)
    worker.wait(30)
    folder.run("failed", "retry", rotten)
    page = folder.start("exporter", r"metrics of \S+ on (\S+)", "exporter", "--port", "0", "--cache-seconds", "0")[1]
    seen = {name: counted(page, f"jobs_{name}_total") for name in ("dispatched", "replayed", "cancelled")}
    assert seen == {name: folder.ledger(name) for name in seen} == {"dispatched": 2, "replayed": 1, "cancelled": 1}


def test_what_only_looks_writes_no_metrics(folder: Folder) -> None:
    folder.run("queues")
    folder.run("failed", "list")
    assert not folder.client.exists("{rf}:metrics")


def test_a_refused_dispatch_says_so_once(folder: Folder) -> None:
    job_id = folder.run("dispatch", "Leaf", "--import", "metered_jobs")
    assert folder.run("dispatch", "Leaf", "--import", "metered_jobs", "--id", job_id) == job_id
    command = rf_jobs("dispatch", "Tree", "--import", "metered_jobs", "--id", job_id)
    done = subprocess.run(command, cwd=folder.path, env=folder.env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*is taken by a m:Leaf on queue 'leaves'.*\n", done.stderr)
    assert done.stdout == ""


def test_modules_that_configure_a_manager_of_their_own_keep_it(folder: Folder) -> None:
    folder.run("dispatch", "Shrub", "--import", "metered_jobs", "--max-attempts", "1")
    folder.start("worker", "serves", "worker", "configured_jobs", "--queues", "trees,leaves")
    letters = wait_until(lambda: json.loads(folder.run("failed", "list", "--json"))["jobs"], "it has failed")
    assert "no answer from the server at redis://127.0.0.1:1/0" in json.dumps(letters)


def test_a_worker_without_telemetry_still_logs_what_happens_to_jobs(folder: Folder) -> None:
    folder.run("dispatch", "Rotten", "--import", "metered_jobs")
    quiet = ("--no-metrics", "--no-tracing")
    folder.start("worker", "Rotten is dead: ValueError: rotten", "worker", "metered_jobs", "--queues", "trees", *quiet)
