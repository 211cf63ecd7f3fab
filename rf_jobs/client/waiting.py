"""Waiting for jobs to end: one subscription per manager, however many jobs are waited for.

The finishing script announces only jobs that somebody watches. The announcement is a hint; every few seconds the
truth is looked up.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import Any

from rf_jobs.core.inspector import Inspector
from rf_jobs.model import codec
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import ExecutionFailed, JobError, JobNotFound, JobTimeout, ResultExpired
from rf_jobs.words.states import State
from rf_jobs.words.timing import from_ms

log = logging.getLogger("rf_jobs.client")
LOOK_UP_SECONDS = 5.0


class Waiter:
    """Tells when jobs end. Its task starts with the first wait and ends with ``aclose``."""

    def __init__(self, store: AsyncStore, inspector: Inspector) -> None:
        self._store = store
        self._inspector = inspector
        self._waiting: dict[str, set[asyncio.Future[str]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    async def result(self, job_id: str, timeout: float | None) -> Any:
        """The job's result, once it ended. Raises ``JobError`` where it has none to come, ``MissingKey`` where it is sealed and
        there is no key, else as ``final_state``."""
        state = await self.final_state(job_id, timeout)
        if state == State.COMPLETED:
            data = await self._store.run(self._store.commands.kept("result", job_id))
            if data is None:
                return await self._no_result(job_id)
            keyring = self._inspector.keyring
            if keyring is None:  # whoever asks shows it to people
                return codec.decode_value(self._inspector.shown("result", job_id, data) or b"null")
            return codec.decode_value(keyring.open_value("result", job_id, data))
        raise await self._why(job_id, state)

    async def _no_result(self, job_id: str) -> None:
        """Why there is none: its handler answered with None, or its time is over."""
        meta = await self._store.run(self._store.commands.meta(job_id))
        if "kept" in meta:
            raise ResultExpired(
                f"job {job_id} completed, but its result was kept only until {from_ms(int(meta['kept'])):%Y-%m-%d %H:%M:%S} UTC;"
                " give the class a longer result_ttl, or fetch it sooner"
            )

    async def _why(self, job_id: str, state: str) -> JobError:
        try:
            record = await self._inspector.job(job_id)
        except JobNotFound:
            return JobError(f"job {job_id} ended as {state}; its record is gone")
        last = record.last_error
        if state == State.DEAD and last is not None:
            if record.reason == "timeout":
                ran = (last.at - last.started_at).total_seconds() if last.started_at is not None else 0.0
                return JobTimeout(ran, f"job {job_id} is a dead letter: {last.message}")
            message = f"job {job_id} is a dead letter after {record.attempt} attempts: {last.type}: {last.message}"
            return ExecutionFailed(message, error_type=last.type, traceback=last.traceback)
        return JobError(f"job {job_id} ended as {state}" + (f": {record.reason}" if record.reason else ""))

    async def final_state(self, job_id: str, timeout: float | None) -> str:
        """The state in which the job ended. Raises ``JobNotFound`` or ``TimeoutError``."""
        if self._listener is None or self._listener.done():
            self._listening.clear()
            self._listener = asyncio.create_task(self._listen(), name="rf-jobs-wait", context=contextvars.Context())
        async with asyncio.timeout(timeout):
            await self._listening.wait()
            while True:
                future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
                self._waiting.setdefault(job_id, set()).add(future)
                try:
                    state = await self._store.run(self._store.commands.watch(job_id))
                    if state == "?":
                        raise JobNotFound(
                            f"no job {job_id} is known; it was never dispatched here, or retention has removed it"
                        )
                    if state:
                        return state
                    await asyncio.wait([future], timeout=LOOK_UP_SECONDS)
                    if future.done():
                        return future.result()
                finally:
                    self._forget(job_id, future)

    def _forget(self, job_id: str, future: asyncio.Future[str]) -> None:
        futures = self._waiting.get(job_id)
        if futures is not None:
            futures.discard(future)
            if not futures:
                del self._waiting[job_id]

    async def _listen(self) -> None:
        tries = 0
        while not self._store.closed:
            try:
                subscription = await self._store.finals()
                self._listening.set()
                async with subscription:
                    while True:
                        message = await subscription.get_message(timeout=LOOK_UP_SECONDS)
                        tries = 0
                        if message is not None:
                            job_id, _, state = message["data"].decode().partition(" ")
                            for future in self._waiting.get(job_id, ()):
                                if not future.done():
                                    future.set_result(state)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # whatever the connection does: waits fall back to looking up
                tries += 1
                log.warning("lost the subscription to finished jobs (%s); looking up instead until it is back", error)
                self._listening.set()
                await asyncio.sleep(min(5.0, 0.1 * 2**tries))

    async def aclose(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
