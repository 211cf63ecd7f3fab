"""Reads the envelopes of jobs that something rare happened to, since the event does not carry the traceparent to link to."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable
from dataclasses import dataclass

from rf_jobs.core.inspector import Inspector
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import RfJobsError

log = logging.getLogger("rf_jobs.telemetry")
PAGE = 100
MAX_WAITING = 1_000


@dataclass
class Found:
    """What is known of a job."""

    letter: Envelope | None = None

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
    def job_class(self) -> str:
        return self.letter.job if self.letter is not None else ""


Then = Callable[[Found], None]


class Lookup:
    """Starts a task when there is something to read and ends it when there is nothing. Where too much waits, or the
    server is away, the caller is called with nothing found: a span without its link is better than none."""

    def __init__(self, store: AsyncStore) -> None:
        self._inspector = Inspector(store)
        self._waiting: list[tuple[str, Then]] = []
        self._task: asyncio.Task[None] | None = None
        self._open = True

    def ask(self, job_id: str, then: Then) -> None:
        """Read about a job, then call ``then``."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # an event of the synchronous side
            then(Found())
            return
        if not self._open or len(self._waiting) >= MAX_WAITING:
            then(Found())
            return
        self._waiting.append((job_id, then))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="rf-jobs-lookup", context=contextvars.Context())

    async def _run(self) -> None:
        try:
            while self._waiting:
                page, self._waiting = self._waiting[:PAGE], self._waiting[PAGE:]
                found = await self._read(page)
                for job_id, then in page:
                    try:
                        then(found.get(job_id) or Found())
                    except Exception:  # a span processor of the application may raise anything
                        log.exception("a span could not be written")
        finally:
            self._task = None

    async def _read(self, page: list[tuple[str, Then]]) -> dict[str, Found]:
        try:
            letters = await self._inspector.envelopes(list({job_id for job_id, _ in page}))
        except RfJobsError as error:
            log.debug("no links for %d spans: %s", len(page), error)
            return {}
        return {job_id: Found(letter) for job_id, letter in letters.items()}

    async def aclose(self, patience: float = 2.0) -> None:
        """Finish what waits."""
        task = self._task
        if task is not None:
            await asyncio.wait([task], timeout=patience)
            task.cancel()
        self._open = False
