"""Jobs that say something, or run for long, in a module that child processes can import."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from rf_jobs import IterableJob, Job, JobContext
from rf_jobs.words.timing import Duration
from tests.support.jobs import QUEUE

own = logging.getLogger("tests.own")


def is_there(folder: str, name: str) -> bool:
    return Path(folder, name).exists()


def put(folder: str, name: str) -> None:
    Path(folder, name).touch()


class Says(Job, queue=QUEUE, backoff=0, max_attempts=2):
    """Writes ``count`` lines, and fails its first attempt if it is told to."""

    count: int = 1
    fail: bool = False

    async def handle(self, ctx: JobContext) -> None:
        for number in range(self.count):
            ctx.log(f"line {number}", number=number)
        if self.fail and ctx.attempt == 1:
            raise ValueError("no")


class SaysInThread(Job, queue=QUEUE, max_attempts=1):
    """From its own thread, and from two more."""

    count: int

    def handle(self, ctx: JobContext) -> None:
        def say(who: str) -> None:
            for number in range(self.count):
                ctx.log(f"{who} {number}")
                ctx.progress(number + 1, self.count)

        others = [threading.Thread(target=say, args=(who,)) for who in ("a", "b")]
        for other in others:
            other.start()
        say("c")
        for other in others:
            other.join()


class SaysInProcess(Job, queue=QUEUE, executor="process", timeout=20, max_attempts=1):
    """Says something in a process of its own; that process is killed afterwards, if it is told to."""

    count: int
    die: bool = False

    def handle(self, ctx: JobContext) -> int:
        for number in range(self.count):
            ctx.log(f"line {number}")
            ctx.progress(number + 1, self.count, f"at {number}")
        if self.die:
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


class Odd(Job, queue=QUEUE, max_attempts=1):
    """Says what is hard to write down."""

    async def handle(self, ctx: JobContext) -> None:
        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError("not even this")

        ctx.log("x" * 100_000)
        ctx.log("half \ud800", value="half \ud800")
        ctx.log("broken", value=Broken())
        ctx.log("an object", at=Path("here"), count={1: {2}})
        long: dict[str, Any] = {f"field{number}": "y" * 2_000 for number in range(50)}
        ctx.log("long fields", **long)
        ctx.log("not for the store", level=logging.DEBUG)
        ctx.log("severe", level=logging.ERROR)


class LogsPlainly(Job, queue=QUEUE, max_attempts=1):
    """Through ``logging``, on the loop or in a thread; what it logs outside its handler is nobody's."""

    threaded: bool = False

    async def handle(self, ctx: JobContext) -> None:
        if self.threaded:
            await asyncio.to_thread(own.warning, "from a thread %d", 7)
        own.warning("from the loop %d", 7)
        ctx.log("by the context")


class Ticks(Job, queue=QUEUE, timeout=60):
    """Tells progress as fast as it can, ``count`` times."""

    count: int

    async def handle(self, ctx: JobContext) -> None:
        await ctx.progress(0, self.count)
        for _ in range(self.count):
            await ctx.advance()


class Deaf(Job, queue=QUEUE, timeout=60):
    """Notes ``<folder>/started``, then ignores every request to stop until ``<folder>/go`` is there, or a test has failed."""

    folder: str

    async def handle(self, ctx: JobContext) -> None:
        put(self.folder, "started")
        give_up = time.monotonic() + 20
        while not is_there(self.folder, "go") and time.monotonic() < give_up:
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                put(self.folder, "told")


class AsksInThread(Job, queue=QUEUE, timeout=60):
    """A thread that looks at ``ctx.cancelled``."""

    def handle(self, ctx: JobContext) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)


class StepByStep(Job, queue=QUEUE, backoff=0, max_attempts=3):
    """Three steps, the last of which fails twice. Each notes itself in ``<folder>/<name>``."""

    folder: str

    async def handle(self, ctx: JobContext) -> list[object]:
        first = await ctx.step("first", self.note, "first", ("a", 1))
        second = await ctx.step("second", self.note_later, "second", first)
        if ctx.attempt < 3:
            await ctx.step("third", self.fails)
        return [first, second, ctx.attempt]

    def note(self, name: str, answer: object) -> object:
        with Path(self.folder, name).open("a") as file:
            file.write("x\n")
        return answer

    async def note_later(self, name: str, answer: object) -> object:
        await asyncio.sleep(0)
        return self.note(name, answer)

    def fails(self) -> None:
        self.note("third", None)
        raise ValueError("the third step")


class Items(IterableJob, queue=QUEUE, timeout=60, backoff=0, max_attempts=3):
    """Appends each number to ``<folder>/items``, and each hook's name to ``<folder>/hooks``. ``trouble`` at item ``at``:
    ``fail`` and ``die`` once; ``wait`` until ``<folder>/go`` is there."""

    folder: str
    count: int
    trouble: str = ""
    at: int = -1
    every: int = 3
    slice: float | None = None
    pause: float = 0.0

    def checkpoint_after(self) -> tuple[int, Duration]:
        return self.every, 60

    def max_runtime(self) -> Duration | None:
        return self.slice

    async def count_items(self) -> int:
        return self.count

    async def items(self, cursor: int | None) -> AsyncIterator[tuple[int, int]]:
        for number in range(0 if cursor is None else cursor + 1, self.count):
            yield number, number

    async def each(self, ctx: JobContext, item: int) -> None:
        if item == self.at and self.trouble in ("fail", "die") and not is_there(self.folder, "once"):
            put(self.folder, "once")
            if self.trouble == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            raise ValueError("once")
        self.write("items", str(item))
        while item == self.at and self.trouble == "wait" and not is_there(self.folder, "go"):  # noqa: ASYNC110 (it comes from a test)
            await asyncio.sleep(0.02)
        if self.pause:
            await asyncio.sleep(self.pause)

    def write(self, name: str, text: str) -> None:
        with Path(self.folder, name).open("a") as file:
            file.write(f"{text}\n")

    async def on_start(self, ctx: JobContext) -> None:
        self.write("hooks", "start")

    async def on_resume(self, ctx: JobContext) -> None:
        self.write("hooks", "resume")

    async def on_stop(self, ctx: JobContext, why: str) -> None:
        self.write("hooks", f"stop: {why}")

    async def on_complete(self, ctx: JobContext) -> None:
        self.write("hooks", "complete")


class InThreads(IterableJob, queue=QUEUE):
    """Items that a plain function does."""

    count: int

    async def items(self, cursor: int | None) -> AsyncIterator[tuple[int, int]]:
        for number in range(self.count):
            yield number, number

    def each(self, ctx: JobContext, item: int) -> None:
        ctx.log(threading.current_thread().name)


class Crooked(IterableJob, queue=QUEUE, max_attempts=1):
    """Yields what is no pair, or a cursor that is no JSON."""

    what: str

    async def items(self, cursor: object) -> AsyncIterator[tuple[object, int]]:
        yield (7, 8, 9) if self.what == "pair" else (object(), 1)  # type: ignore[misc]

    async def each(self, ctx: JobContext, item: int) -> None: ...
