"""Waiting that Ctrl-C ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from rf_jobs.demo.checks import Verdicts

LOOK_SECONDS = 0.1


class Patience:
    """``stopped`` is set by the first Ctrl-C."""

    def __init__(self, say: Verdicts) -> None:
        self.stopped = asyncio.Event()
        self._say = say

    async def pause(self, seconds: float) -> None:
        """So long, or until Ctrl-C."""
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self.stopped.wait()
            except TimeoutError:
                return

    async def until(
        self, holds: Callable[[], Awaitable[bool]], seconds: float, what: str, *, to_the_end: bool = False
    ) -> bool:
        """Whether ``holds`` did before the time was over, or Ctrl-C came; with ``to_the_end`` that does not end it. If not,
        that is a verdict, named ``what``."""
        give_up = time.monotonic() + seconds
        while not await holds():
            if self.stopped.is_set() and not to_the_end:
                self._say.say(what, False, "Ctrl-C came first")
                return False
            if time.monotonic() > give_up:
                self._say.say(what, False, f"not within {seconds:.0f} s")
                return False
            if to_the_end:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                await self.pause(LOOK_SECONDS)
        return True
