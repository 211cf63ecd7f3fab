"""What contexts need of the outside: progress, checkpoints, extensions."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import isfinite
from typing import Any

from rf_jobs.client.manager import QueueManager
from rf_jobs.model import codec
from rf_jobs.model.context import Dispatcher, JobContext
from rf_jobs.words.errors import BackendError, InvalidOption, StaleLease

log = logging.getLogger("rf_jobs.worker")


class StoreDesk:
    """Serves the contexts of one worker."""

    def __init__(self, manager: QueueManager, on_extend: Callable[[JobContext, float], None]) -> None:
        self.manager: Dispatcher | None = manager
        self._store = manager.store
        self._on_extend = on_extend

    async def keep_progress(self, ctx: JobContext, current: float, total: float, message: str) -> None:
        """Progress is news, not state: where the lease is lost, or the server away, it is dropped. Raises
        ``InvalidOption`` for what is no number."""
        for name, number in (("current", current), ("total", total)):
            if not isinstance(number, (int, float)) or not isfinite(number):
                raise InvalidOption(f"progress: {name} is {number!r}; give a finite number")
        value = codec.encode_value({"current": current, "total": total, "message": str(message)[:1000]}, "progress")
        try:
            await self._store.run(self._store.commands.keep("progress", ctx.id, ctx.token, value))
        except BackendError as error:
            log.debug("the progress of job %s was not kept: %s", ctx.id, error)

    async def keep_checkpoint(self, ctx: JobContext, state: Any) -> None:
        """Raises ``StaleLease``, ``SerializationError`` or ``BackendError``: the handler must not believe it is saved."""
        value = codec.encode_value(state, "the checkpoint")
        if not await self._store.run(self._store.commands.keep("checkpoint", ctx.id, ctx.token, value)):
            raise StaleLease(f"the lease of job {ctx.id} is no longer held; stop, another worker has or had the job")

    async def load_checkpoint(self, ctx: JobContext) -> Any:
        """The last checkpoint of any attempt, None where there is none."""
        data = await self._store.run(self._store.commands.kept("checkpoint", ctx.id))
        return None if data is None else codec.decode_value(data)

    def extend(self, ctx: JobContext, by: float) -> None:
        """Move the deadline."""
        self._on_extend(ctx, by)
