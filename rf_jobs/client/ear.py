"""One connection that listens, for all of a process who want to hear of something; it comes back after it was lost."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from rf_jobs.store.channels import Channels
from rf_jobs.store.redis import AsyncStore, pause_before

log = logging.getLogger("rf_jobs.client")
HEAR_SECONDS = 5.0
AGAIN = ""
"""Is put into every box when the connection is (back) there: something may have been missed."""


class Box:
    """What was heard and not yet taken. However much is said, it holds each word once: a slow reader misses none, and
    makes nobody wait."""

    def __init__(self) -> None:
        self._words: set[str] = set()
        self._full = asyncio.Event()
        self.last = AGAIN
        """The newest word."""

    def put(self, words: str) -> None:
        """Put in what was said."""
        self.last = words
        self._words.update(words.split() or [AGAIN])
        self._full.set()

    async def take(self, timeout: float | None) -> set[str]:
        """All that is in it, as soon as there is something; nothing after ``timeout`` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._full.wait()
        words, self._words = self._words, set()
        self._full.clear()
        return words


class Ear:
    """Listens to the channels of one family. Its task and its connection start with the first ``listen``, and end with
    ``aclose``, or a few seconds after nobody listens any more."""

    def __init__(self, store: AsyncStore, family: str) -> None:
        self._store = store
        self._family = family
        self._boxes: dict[str, set[Box]] = {}
        self._channels: Channels | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        """Set once the first attempt to connect has gone well or has failed."""

    @asynccontextmanager
    async def listen(self, member: str) -> AsyncGenerator[Box]:
        """A box for what is said of ``member``; what is said once this was entered is heard, unless the connection is
        down: then it says ``AGAIN`` when it is back."""
        box = Box()
        fresh = member not in self._boxes
        self._boxes.setdefault(member, set()).add(box)
        try:
            if self._task is None or self._task.done():
                self._settled.clear()
                self._task = asyncio.create_task(
                    self._run(), name=f"rf-jobs-{self._family}", context=contextvars.Context()
                )
            elif fresh and self._channels is not None:
                await self._tell_server(self._channels.add(member))
            await self._settled.wait()
            yield box
        finally:
            boxes = self._boxes[member]
            boxes.discard(box)
            if not boxes:
                del self._boxes[member]
                if self._channels is not None:
                    await self._tell_server(self._channels.drop(member))

    async def _tell_server(self, telling: object) -> None:
        try:
            await telling  # type: ignore[misc]
        except Exception as error:  # whatever the connection does: the task that reads from it finds out too
            log.debug("could not change what is listened to: %s", error)

    async def _run(self) -> None:
        tries = 0
        while self._boxes and not self._store.closed:
            channels = self._store.channels(self._family)
            try:
                await self._add_all(channels)
                self._channels = channels
                self._settled.set()
                for boxes in self._boxes.values():
                    for box in boxes:
                        box.put(AGAIN)
                while self._boxes:
                    heard = await channels.hear(HEAR_SECONDS)
                    tries = 0
                    if heard is not None:
                        for box in self._boxes.get(heard[0], ()):
                            box.put(heard[1])
            except Exception as error:  # whatever the connection does: who listens looks by himself meanwhile
                tries += 1
                log.log(
                    logging.WARNING if tries == 1 else logging.DEBUG,
                    "lost the connection that listens (%s); looking from time to time until it is back", error,
                )  # fmt: skip
                self._settled.set()
                await asyncio.sleep(pause_before(tries))
            finally:
                self._channels = None
                with suppress(Exception):
                    await channels.aclose()

    async def _add_all(self, channels: Channels) -> None:
        known: set[str] = set()
        while missing := self._boxes.keys() - known:  # others may come meanwhile
            await channels.add(*missing)
            known |= missing

    async def aclose(self) -> None:
        """Listen no longer. Who still waits for a word waits in vain."""
        if self._task is not None:
            self._task.cancel()
            self._settled.set()
            await asyncio.gather(self._task, return_exceptions=True)
