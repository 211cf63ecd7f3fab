"""Jobs of every behaviour, in a module that child processes can import."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from pathlib import Path

from rf_jobs import Discard, Exponential, Fail, Fixed, Job, JobContext, Linear, Queue, Retry, Snooze
from rf_jobs.words.errors import JobError

QUEUE = "t"


class Add(Job, queue=QUEUE):
    a: int
    b: int

    async def handle(self, ctx: JobContext) -> int:
        return self.a + self.b


class InThread(Job, queue=QUEUE):
    def handle(self, ctx: JobContext) -> str:
        return threading.current_thread().name


class InProcess(Job, queue=QUEUE, executor="process", timeout=20, backoff=0, max_attempts=2, discard_on=(KeyError,)):
    do: str

    def handle(self, ctx: JobContext) -> int:
        if self.do == "raise":
            raise ValueError("in a child")
        if self.do == "discard":
            raise KeyError("given up")
        if self.do == "fail":
            raise Fail("no second time")
        if self.do == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


class Hang(Job, queue=QUEUE, executor="process", timeout=0.5, max_attempts=1):
    def handle(self, ctx: JobContext) -> None:
        time.sleep(60)


class Fails(Job, queue=QUEUE, max_attempts=3, backoff=0):
    until: int = 99

    async def handle(self, ctx: JobContext) -> str:
        if ctx.attempt < self.until:
            raise RuntimeError(f"attempt {ctx.attempt}")
        return f"attempt {ctx.attempt} of {ctx.max_attempts}"


class Steered(Job, queue=QUEUE, backoff=3600):
    how: str

    async def handle(self, ctx: JobContext) -> str:
        if self.how == "retry" and ctx.attempt == 1:
            raise Retry("again", delay=0)
        if self.how == "fail":
            raise Fail("for good")
        if self.how == "discard":
            raise Discard("on purpose")
        if self.how == "snooze" and ctx.state is None:
            await ctx.checkpoint("slept")
            raise Snooze(0.01)
        return f"attempt {ctx.attempt}"


class Filtered(Job, queue=QUEUE, backoff=0, max_attempts=5, retry_on=(OSError,), discard_on=(KeyError,)):
    error: str

    async def handle(self, ctx: JobContext) -> None:
        raise {"os": OSError, "key": KeyError, "value": ValueError}[self.error](self.error)


class Odd(Job, queue=QUEUE, max_attempts=1):
    """Handlers that raise what nobody should."""

    what: str

    async def handle(self, ctx: JobContext) -> object:
        if self.what == "exit":
            raise SystemExit(3)
        if self.what == "interrupt":
            raise KeyboardInterrupt
        if self.what == "cancelled":
            raise asyncio.CancelledError
        if self.what == "unprintable":
            raise UnprintableError
        if self.what == "surrogate":
            raise ValueError("lone \ud800 surrogate")
        if self.what == "huge":
            raise ValueError("x" * 1_000_000)
        return object()


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class Sleeps(Job, queue=QUEUE, timeout=60):
    seconds: float

    async def handle(self, ctx: JobContext) -> int:
        await asyncio.sleep(self.seconds)
        return ctx.attempt


class FirstHangs(Job, queue=QUEUE, timeout=60):
    """Notes that it runs as ``<folder>/<id>``. The first run hangs until it is killed, the next returns at once."""

    folder: str

    async def handle(self, ctx: JobContext) -> int:
        note = Path(self.folder, ctx.id)
        if note.exists():  # noqa: ASYNC240 (a test's folder)
            return ctx.attempt
        note.touch()  # noqa: ASYNC240
        await asyncio.sleep(600)
        raise AssertionError("nobody killed it")

    @staticmethod
    def started(folder: Path) -> set[str]:
        """Ids of those that have."""
        return {note.name for note in folder.iterdir()}


class Slow(Job, queue=QUEUE, timeout=0.3, max_attempts=2, backoff=0):
    stubborn: bool = False

    async def handle(self, ctx: JobContext) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            if not self.stubborn:
                raise


class Extends(Job, queue=QUEUE, timeout=2, max_attempts=1):
    async def handle(self, ctx: JobContext) -> str:
        await ctx.extend(60)
        await asyncio.sleep(2.3)
        return "in time"


class SlowThread(Job, queue=QUEUE, timeout=0.2, max_attempts=1):
    def handle(self, ctx: JobContext) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)


class Blocks(Job, queue=QUEUE, timeout=60):
    """Keeps the event loop from running."""

    seconds: float
    how: str = "sleep"

    async def handle(self, ctx: JobContext) -> int:
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            if self.how == "sleep":
                time.sleep(0.05)  # noqa: ASYNC251 (that is the point)
            elif self.how == "regex":
                re.match(r"(a|a)*b", "a" * 23)  # C code that holds the GIL
        return ctx.attempt


class Forever(Job, queue=QUEUE, timeout=0.5, backoff=0):
    """Neither its timeout nor anything else can stop it but a kill."""

    async def handle(self, ctx: JobContext) -> None:
        while True:
            pass


class Kills(Job, queue=QUEUE):
    """Kills the process that runs it."""

    async def handle(self, ctx: JobContext) -> None:
        os._exit(9)


class Hook(Job, queue=QUEUE, max_attempts=2, backoff=0):
    path: str
    broken: bool = False

    async def handle(self, ctx: JobContext) -> None:
        raise ValueError("always")

    async def failed(self, ctx: JobContext, error: JobError) -> None:
        Path(self.path).write_text(f"{Path(self.path).read_text()}{ctx.attempt} {error}\n")  # noqa: ASYNC240
        if self.broken:
            raise RuntimeError("the hook too")


class Dynamic(Job, queue=QUEUE):
    attempts: int
    policy: str = "0"

    def max_attempts(self) -> int:
        return self.attempts

    def backoff(self) -> object:  # type: ignore[override]
        known: dict[str, object] = {"fixed": Fixed(0), "linear": Linear(0.01), "exponential": Exponential(0.01)}
        if self.policy == "broken":
            return lambda attempt, error: 1 / 0
        return known.get(self.policy, 0)

    async def handle(self, ctx: JobContext) -> None:
        raise ValueError("always")


class Effect(Job, queue=QUEUE, timeout=30, max_attempts=50, backoff=0.05):
    """Writes down that it ran, under which lease, on a second server."""

    number: int
    seconds: float = 0.0

    async def handle(self, ctx: JobContext) -> None:
        import redis.asyncio

        async with redis.asyncio.Redis.from_url(os.environ["RF_JOBS_TEST_EFFECTS"]) as client:
            await client.rpush(f"x:{self.number}", ctx.token)
        if self.seconds:
            await asyncio.sleep(self.seconds)


class Pids(Job, queue=QUEUE, many=50, many_wait=30):
    """Runs together with others; answers with the process in which it did."""

    @classmethod
    async def handle_many(cls, jobs: list[Pids], ctxs: list[JobContext]) -> list[int]:
        return [os.getpid() for _ in jobs]


class Dispatches(Job, queue=QUEUE, executor="process", timeout=20, max_attempts=1):
    """Dispatches another job, from a process of its own."""

    how: str

    async def handle(self, ctx: JobContext) -> str:
        if self.how == "manager":
            return str(await ctx.manager.dispatch(Add(a=1, b=2)))
        if self.how == "sync":
            return str(await asyncio.to_thread(lambda: Queue.dispatch(Add(a=1, b=2)).sync()))
        if self.how == "many":
            return " ".join(map(str, await Queue.dispatch_many([Add(a=1, b=2), Add(a=3, b=4)])))
        return str(await Queue.dispatch(Add(a=1, b=2)))


class Deadly(Job, queue=QUEUE, many=3, many_wait=30, timeout=20):
    """Runs together with others; one of them kills the process."""

    kills: bool = False

    @classmethod
    async def handle_many(cls, jobs: list[Deadly], ctxs: list[JobContext]) -> list[int]:
        if any(job.kills for job in jobs):
            os._exit(9)
        return [len(jobs)] * len(jobs)
