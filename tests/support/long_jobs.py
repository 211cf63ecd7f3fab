"""Jobs that last as long as a test wants, and jobs in processes of their own, in a module that child processes can import."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from rf_jobs import Job, JobContext
from rf_jobs.words.errors import JobError
from tests.support.jobs import QUEUE

log = logging.getLogger("tests.own")


class Waits(Job, queue=QUEUE, timeout=60):
    """Notes each start as a line of ``<folder>/starts``, and runs until ``<folder>/go`` is there. The answer is its pid."""

    folder: str

    async def handle(self, ctx: JobContext) -> int:
        folder = Path(self.folder)
        with (folder / "starts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        while not (folder / "go").exists():  # noqa: ASYNC110 (it comes from another process)
            await asyncio.sleep(0.02)
        return os.getpid()


class Blocked(Job, queue=QUEUE, timeout=10, backoff=0):
    """As ``Waits``; but once ``<folder>/block`` is there its first run keeps the event loop until it is killed."""

    folder: str

    async def handle(self, ctx: JobContext) -> int:
        folder = Path(self.folder)
        with (folder / "starts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        if len((folder / "starts").read_text().splitlines()) > 1:
            return os.getpid()
        while not (folder / "block").exists():  # noqa: ASYNC110 (likewise)
            await asyncio.sleep(0.02)
        while True:
            time.sleep(0.05)  # noqa: ASYNC251 (that is the point)


class ExtendsInProcess(Job, queue=QUEUE, executor="process", timeout=3, max_attempts=1):
    async def handle(self, ctx: JobContext) -> str:
        await ctx.extend(10)
        await asyncio.sleep(4)
        return "in time"


class LogsInProcess(Job, queue=QUEUE, executor="process", timeout=20, max_attempts=1):
    async def handle(self, ctx: JobContext) -> int:
        ctx.log("half way", done=5, of=10)
        log.debug("not to be seen")
        try:
            raise ValueError("caught")  # noqa: TRY301 (for its traceback)
        except ValueError:
            log.warning("odd %s", "\ud800", exc_info=True, extra={"colour": object()})
        return os.getpid()


class DiesWithHook(Job, queue=QUEUE, executor="process", timeout=20):
    """Kills its own process each time; the hook writes what it is told to ``path``."""

    path: str

    async def handle(self, ctx: JobContext) -> None:
        os._exit(9)

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        with Path(self.path).open("a") as file:  # noqa: ASYNC230
            file.write(f"{type(error).__name__}: {error}\n")


_seen: list[asyncio.AbstractEventLoop] = []


class UsesALoopOfBefore(Job, queue=QUEUE, executor="process", timeout=20, max_attempts=1):
    """As a job does whose module keeps a client: what was bound to the event loop of the first is used by the next."""

    leave: bool = False

    async def handle(self, ctx: JobContext) -> list[int]:
        _seen.append(asyncio.get_running_loop())
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(asyncio.sleep(0), _seen[0]))
        if self.leave:
            raise SystemExit(3)
        return [os.getpid(), len(_seen)]


class KillsItsWorker(Job, queue=QUEUE, timeout=20):
    """Kills the worker process that runs it; the hook writes what it is told to ``path``."""

    path: str

    async def handle(self, ctx: JobContext) -> None:
        os._exit(9)

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        with Path(self.path).open("a") as file:  # noqa: ASYNC230
            file.write(f"{type(error).__name__}: {error}\n")
