"""Threads for handlers that are plain functions.

Daemon threads, so that one that never returns can't keep the process from ending; contextvars go with the call. A
thread cannot be killed: one that overran its job's timeout is given up, counted, and replaced.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Work = tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], contextvars.Context, Callable[[], Any]]


class Threads:
    """At most ``limit`` threads, started when needed, ended by ``close``. What runs then goes on until it returns."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._work: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._started = 0
        self._busy = 0
        self.stuck = 0
        """Threads that were given up and have not come back."""

    async def run(self, function: Callable[[], Any]) -> Any:
        """Call ``function`` in a thread. When the waiting task is cancelled the thread goes on alone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._busy >= self._started and self._started < self._limit + self.stuck:
            self._started += 1
            threading.Thread(target=self._loop, name=f"rf-jobs-{self._started}", daemon=True).start()
        self._busy += 1
        self._work.put((loop, future, contextvars.copy_context(), function))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not future.done():
                self.stuck += 1
                future.add_done_callback(self._came_back)
            raise

    def _came_back(self, future: asyncio.Future[Any]) -> None:
        self.stuck -= 1
        if not future.cancelled():
            future.exception()  # it was reported as overrun; what it raised at last is of no use

    def _loop(self) -> None:
        while (work := self._work.get()) is not None:
            loop, future, context, function = work
            result, error = None, None
            try:
                result = context.run(function)
            except BaseException as raised:  # it belongs to whoever waits
                error = raised
            try:
                loop.call_soon_threadsafe(self._deliver, future, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _deliver(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        self._busy -= 1
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, StopIteration):
            future.set_exception(RuntimeError("the handler raised StopIteration"))
        else:
            future.set_exception(error)

    def close(self) -> None:
        """Let idle threads end."""
        for _ in range(self._started):
            self._work.put(None)
