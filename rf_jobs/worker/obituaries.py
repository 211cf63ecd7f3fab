"""The ``failed`` hook of jobs whose last crash took their whole worker with it: whoever finds them buried calls it."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from rf_jobs.client.manager import QueueManager
from rf_jobs.store.shapes import Leased
from rf_jobs.words.errors import ExecutionFailed, JobError, RfJobsError
from rf_jobs.words.timing import mono, now_ms
from rf_jobs.worker.attempt import NOWHERE, Attempt

log = logging.getLogger("rf_jobs.worker")


class Obituaries:
    """Writes one after the other, since such a hook may do harm too. What is not written when the worker stops is lost, as
    it is when the worker dies of it: at most once."""

    def __init__(self, manager: QueueManager, tell: Callable[[Attempt, JobError], Coroutine[Any, Any, None]]) -> None:
        self._manager = manager
        self._tell = tell
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def write(self, queue: str, job_id: str, attempt: int, crashes: int) -> None:
        """The job is dead as poison: its hook is to be called."""
        task = asyncio.create_task(
            self._write(queue, job_id, attempt, crashes), name="rf-jobs-obituary", context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, queue: str, job_id: str, attempt: int, crashes: int) -> None:
        store = self._manager.store
        async with self._turn:
            try:
                [data] = await store.run(store.commands.envelopes([job_id]))
            except RfJobsError as error:
                log.warning("failed() of job %s is not called: %s", job_id, error)
                return
            if data is None:
                return
            now = now_ms()
            leased = Leased(job_id, data, queue, attempt, crashes, now, now, now, "", "", again=True)
            message = f"its worker process died, {crashes} times: that is max_crashes"
            await self._tell(Attempt(leased, NOWHERE, mono(), now), ExecutionFailed(message, error_type="WorkerLost"))

    def close(self) -> None:
        """Write no more."""
        for task in self._tasks:
            task.cancel()
