"""Reads what the store knows of jobs that something rare happened to, since the event does not carry the traceparent to
link to, nor the lease that an attempt's ids follow from."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rf_jobs.model import envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.calls import Call
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import RfJobsError

log = logging.getLogger("rf_jobs.telemetry")
PAGE = 100
MAX_WAITING = 1_000


@dataclass
class Found:
    """What is known of a job."""

    letter: Envelope | None = None
    token: str = ""
    """The lease of its last attempt."""
    attempt: int = 0
    """Which one that was."""
    silent_ms: int | None = None
    """How long the worker that was asked about has not been heard of, where that is known."""

    @property
    def traceparent(self) -> str:
        """Its creation context."""
        headers = self.letter.hdr if self.letter is not None else None
        return headers.tp if headers is not None else ""

    @property
    def tracestate(self) -> str:
        headers = self.letter.hdr if self.letter is not None else None
        return headers.ts if headers is not None else ""

    @property
    def conversation(self) -> str:
        """What all jobs of its workflow share; '' for a job of its own."""
        headers = self.letter.hdr if self.letter is not None else None
        return headers.cv if headers is not None else ""

    @property
    def job_class(self) -> str:
        return self.letter.job if self.letter is not None else ""


Then = Callable[[Found], None]


class _Asked(NamedTuple):
    job_id: str
    worker: str
    then: Then


class Lookup:
    """Made on the loop of its store. Starts a task when there is something to read and ends it when there is nothing. Where too much waits, or the
    server is away, the caller is called with nothing found: a span without its link is better than none."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Asked] = []
        self._task: asyncio.Task[None] | None = None
        self._open = True

    def ask(self, job_id: str, then: Then, *, worker: str = "") -> None:
        """Read about a job, and how long a worker has been silent, then call ``then``."""
        # An event of the synchronous side comes on another thread: the store belongs to this one's loop.
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if not here or not self._open or len(self._waiting) >= MAX_WAITING:
            then(Found())
            return
        self._waiting.append(_Asked(job_id, worker, then))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="rf-jobs-lookup", context=contextvars.Context())

    async def _run(self) -> None:
        try:
            while self._waiting:
                page, self._waiting = self._waiting[:PAGE], self._waiting[PAGE:]
                found = await self._read(page)
                for asked, each in zip(page, found, strict=True):
                    try:
                        asked.then(each)
                    except Exception:  # a span processor of the application may raise anything
                        log.exception("a span could not be written")
        finally:
            self._task = None

    async def _read(self, page: list[_Asked]) -> list[Found]:
        """One round trip for all of them."""
        commands = self._store.commands
        workers = sorted({asked.worker for asked in page if asked.worker})
        calls: list[Call[Any]] = [commands.time(), commands.envelopes([asked.job_id for asked in page])]
        calls += [commands.meta(asked.job_id) for asked in page]
        calls += [commands.worker(worker) for worker in workers]
        try:
            now, letters, *hashes = await self._store.run_many(calls)
        except RfJobsError as error:
            log.debug("no links for %d spans: %s", len(page), error)
            return [Found() for _ in page]
        beats = dict(zip(workers, (facts.get("beat") for facts in hashes[len(page) :]), strict=True))
        return [
            Found(
                envelope.readable(data),
                meta.get("token", "").lstrip("!"),
                int(meta.get("attempt", "0")),
                None if beats.get(asked.worker) is None else max(0, now - int(beats[asked.worker])),
            )
            for asked, data, meta in zip(page, letters, hashes[: len(page)], strict=True)
        ]

    async def aclose(self, patience: float = 2.0) -> None:
        """Finish what waits."""
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=patience)
            task.cancel()
        self._open = False
