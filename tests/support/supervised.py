"""``rf-jobs worker`` as a process, in a folder with a module of job classes that a test writes, and rewrites."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from rf_jobs import Job, JobContext, QueueManager
from rf_jobs.core.records import WorkerInfo
from tests.support.processes import process, rf_jobs
from tests.support.waiting import until

OFF = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}
QUEUE = "told"
JOBS = """
import asyncio
import os
import threading
from pathlib import Path

from rf_jobs import Job, JobContext

VERSION = "{version}"


class Tell(Job, name="supervised:Tell", queue="{queue}"):
    seconds: float = 0.02

    async def handle(self, ctx: JobContext) -> tuple[str, int, list[str]]:
        await asyncio.sleep(self.seconds)
        return VERSION, os.getpid(), [thread.name for thread in threading.enumerate()]


class Stay(Job, name="supervised:Stay", queue="{queue}", timeout=60):
    go: str

    async def handle(self, ctx: JobContext) -> str:
        while not Path(self.go).exists():
            await asyncio.sleep(0.02)
        return VERSION
"""


class Tell(Job, name="supervised:Tell", queue=QUEUE):
    """To dispatch; it runs as the module has it. The result: the module's version, the pid, and the process's threads."""

    seconds: float = 0.02

    async def handle(self, ctx: JobContext) -> tuple[str, int, list[str]]:
        raise AssertionError("it runs in the worker")


class Stay(Job, name="supervised:Stay", queue=QUEUE, timeout=60):
    """Likewise; it runs until the file ``go`` is there. The result is the module's version."""

    go: str

    async def handle(self, ctx: JobContext) -> str:
        raise AssertionError("it runs in the worker")


class Supervised:
    """A running supervisor."""

    def __init__(self, program: subprocess.Popen[bytes], manager: QueueManager, log: Path) -> None:
        self.program = program
        self.manager = manager
        self._log = log

    @property
    def log(self) -> str:
        """What it and its children have logged."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Send the supervisor one."""
        self.program.send_signal(number)

    async def says(self, pattern: str, timeout: float = 30.0) -> str:
        """What the pattern's first group is in the log, once it is there."""

        async def look() -> re.Match[str] | None:
            return re.search(pattern, self.log)

        found = await until(look, f"it logs {pattern!r}", timeout)
        assert found is not None
        return found[found.re.groups and 1]

    async def workers(self, state: str, count: int = 1, *, but: set[int] | None = None) -> list[WorkerInfo]:
        """The workers in this state, of other processes than ``but``, once there are so many."""

        async def look() -> list[WorkerInfo]:
            found = [w for w in await self.manager.workers() if w.state == state and w.pid not in (but or set())]
            return found if len(found) >= count else []

        return await until(look, f"{count} workers are {state}", 30)

    async def page(self, path: str, accept: str = "") -> str:
        """What its port says, errors too."""
        port = await self.says(r"metrics and probes of all processes on http://127\.0\.0\.1:(\d+)")
        return await asyncio.to_thread(_page, f"http://127.0.0.1:{port}{path}", accept)

    async def shows(self, path: str, pattern: str) -> str:
        """The page, once the pattern is found in it."""

        async def look() -> str:
            page = await self.page(path)
            return page if re.search(pattern, page) else ""

        return await until(look, f"{path} has {pattern!r}", 30)

    async def ends(self) -> int:
        """Its exit code."""
        return await asyncio.to_thread(self.program.wait, 30)


def _page(url: str, accept: str) -> str:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=20) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.HTTPError as error:
        with error:
            return error.read().decode()


@asynccontextmanager
async def supervised(
    manager: QueueManager,
    folder: Path,
    *options: str,
    env: dict[str, str] = OFF,
    here: Path | None = None,
    sets_from_file: bool = False,
    script: bool = False,
) -> AsyncGenerator[Supervised]:
    """A supervisor with the module ``told`` of the folder ``here``; in the end it is stopped and must exit with 0. ``script``
    starts it by the script that is installed, as users do."""
    here = here or folder
    command = rf_jobs(
        "worker", "told", "--redis-url", manager.settings.jobs.redis_url, "--lease-seconds", "3", "--grace-seconds", "0.5",
        "--shutdown-timeout-seconds", "5", *options,
    )  # fmt: skip
    if "--set" not in options and not sets_from_file:
        command += ["--queues", QUEUE]
    if script:
        command[:3] = [str(Path(sys.executable).with_name("rf-jobs"))]
    with process(*command, log=folder / "log", env={**env, "PWD": str(here)}, cwd=here) as program:
        yield Supervised(program, manager, folder / "log")
        if program.poll() is None:
            program.terminate()
            assert await asyncio.to_thread(program.wait, 30) == 0, (folder / "log").read_text()


def deploy(folder: Path, version: str, *, before: str = "") -> None:
    """Write the module anew. The versions of one test differ in length: Python's cache looks at size and second."""
    (folder / "told.py").write_text(before + JOBS.format(version=version, queue=QUEUE))


@asynccontextmanager
async def never_fewer_slots(manager: QueueManager, slots: int) -> AsyncGenerator[None]:
    """Fails if at any look within the block the workers that take jobs have fewer slots."""
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(sum(worker.slots for worker in await manager.workers() if worker.state == "running"))
            await asyncio.sleep(0.02)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert len(seen) > 10
    assert min(seen) >= slots, seen


def threads_of(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))
