"""``IterableJob``: a long job as many small items, that can stop between any two and go on later, elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.words.control import Snooze
from rf_jobs.words.errors import InvalidOption, RfJobsError
from rf_jobs.words.timing import Duration, mono, seconds

SLICE = 0.8
"""The share of its timeout after which a run stops by itself."""


class IterableJob(Job, abstract=True):
    """A job that does the same to many items, one after the other: ``items`` yields them, ``each`` does one.

    Where it is saved every so often. After a failure, a crash, a shutdown or a deploy it goes on behind the last item that
    was saved; those behind it that were done are done again, so ``each`` must bear that. It stops cleanly between two
    items when its worker shuts down, when ``max_runtime`` is over, and before its timeout would end it; then it goes to
    the end of its queue, and the next run is no further attempt. Its result is how many items were done.

    Raises ``InvalidOption`` when the class is defined without ``items``, as an async generator, and ``each``.
    """

    if TYPE_CHECKING:

        def items(self, cursor: Any) -> AsyncIterator[tuple[Any, Any]]:
            """Yield pairs: a cursor (JSON), and an item. ``cursor`` is None for the first run, else that of the last item
            that is done: go on behind it."""
            raise NotImplementedError

        def each(self, ctx: JobContext, item: Any) -> Any:
            """Do one item. ``async def`` runs on the event loop, ``def`` in a thread."""

    else:

        def __init_subclass__(cls, **options: Any) -> None:
            for name in {"items", "each"} & inspect.get_annotations(cls).keys():
                raise InvalidOption(
                    f"class {cls.__qualname__} has a field {name!r}, which is the name of a method of IterableJob;"
                    " rename the field"
                )
            if not options.get("abstract"):
                if not inspect.isasyncgenfunction(getattr(cls, "items", None)):
                    raise InvalidOption(
                        f"class {cls.__qualname__} has no items(self, cursor) that is `async def` and yields; define it, or"
                        " pass abstract=True"
                    )
                if not callable(getattr(cls, "each", None)):
                    raise InvalidOption(f"class {cls.__qualname__} has no each(self, ctx, item); define it")
            super().__init_subclass__(**options)

    def checkpoint_after(self) -> tuple[int, Duration]:
        """Where it is is saved after so many items, and where they are slow, after so long. Each time is a round trip."""
        return 100, 5.0

    def max_runtime(self) -> Duration | None:
        """How long one run may last before others get their turn; None: as long as most of its timeout."""
        return None

    async def count_items(self) -> int | None:
        """How many items there are in all, for the progress; None: that is not known."""
        return None

    async def on_start(self, ctx: JobContext) -> None:
        """Called before the first item of all."""

    async def on_resume(self, ctx: JobContext) -> None:
        """Called instead when a run goes on behind an item that is done."""

    async def on_stop(self, ctx: JobContext, why: str) -> None:
        """Called when a run ends early without a failure of its own: ``shutdown``, ``max_runtime``, ``cancelled``,
        ``timeout``, or ``lost`` (its lease)."""

    async def on_complete(self, ctx: JobContext) -> None:
        """Called after the last item of all."""

    async def handle(self, ctx: JobContext) -> int:
        """One run."""
        return await _Run(self, ctx).go()


class _Run:
    """One run of an iterable job: begins at the saved cursor, ends at the last item or before."""

    def __init__(self, job: IterableJob, ctx: JobContext) -> None:
        self._job = job
        self._ctx = ctx
        self._resumes = ctx.state is not None
        start: dict[str, Any] = {"cursor": None, "done": 0}
        state = ctx.state if self._resumes else start
        if not isinstance(state, dict) or state.keys() != {"cursor", "done"}:
            raise InvalidOption(
                f"the checkpoint of job {ctx.id} is {str(state)[:100]!r}, which no IterableJob wrote; dispatch it again"
            )
        self._cursor: Any = state["cursor"]
        self._done: int = state["done"]
        self._saved = self._done
        self._saved_at = self._began = mono()
        self._every, every = job.checkpoint_after()
        self._every_seconds = seconds(every, "checkpoint_after")
        limit = job.max_runtime()
        self._limit = None if limit is None else seconds(limit, "max_runtime")
        self._in_thread = not inspect.iscoroutinefunction(job.each)

    async def go(self) -> int:
        """Raises ``Snooze`` where it is to go on later."""
        job, ctx = self._job, self._ctx
        total = await job.count_items() or 0
        await (job.on_resume(ctx) if self._resumes else job.on_start(ctx))
        try:
            why = await self._iterate(total)
            await self._save()
        except BaseException as error:
            with contextlib.suppress(RfJobsError):  # what went wrong first is what counts
                await self._save()
            if isinstance(error, asyncio.CancelledError):
                await job.on_stop(ctx, str(error.args[0]) if error.args else "cancelled")
            raise
        if why:
            await job.on_stop(ctx, why)
            raise Snooze(0, "the worker stops" if why == "shutdown" else f"{why} is over")
        await job.on_complete(ctx)
        return int(self._done)

    async def _iterate(self, total: int) -> str:
        """Answers with why it stopped early; '' at the end of all items."""
        async with aclosing(self._job.items(self._cursor)) as items:  # type: ignore[type-var]
            async for pair in items:
                if not isinstance(pair, tuple) or len(pair) != 2:
                    name = type(self._job).__qualname__
                    raise InvalidOption(f"items() of {name} yielded {str(pair)[:100]!r}; yield pairs: cursor, item")
                cursor, item = pair
                await self._do(item)
                self._cursor = cursor
                self._done += 1
                await self._ctx.progress(self._done, total)
                if why := self._why_stop():
                    return why
                if self._is_due():
                    await self._save()
        return ""

    async def _do(self, item: Any) -> None:
        if self._in_thread:
            await asyncio.to_thread(self._job.each, self._ctx, item)
        else:
            await self._job.each(self._ctx, item)

    def _why_stop(self) -> str:
        if self._ctx.cancelled:
            return "cancelled"
        if self._ctx.stopping:
            return "shutdown"
        ran = mono() - self._began
        allowed = SLICE * (self._ctx.deadline - self._ctx.started_at).total_seconds()
        return "max_runtime" if ran >= (allowed if self._limit is None else min(allowed, self._limit)) else ""

    def _is_due(self) -> bool:
        return self._done - self._saved >= self._every or mono() - self._saved_at >= self._every_seconds

    async def _save(self) -> None:
        if self._done != self._saved:
            await self._ctx.checkpoint({"cursor": self._cursor, "done": self._done})
            self._saved, self._saved_at = self._done, mono()
