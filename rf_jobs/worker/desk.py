"""What contexts need of the outside: progress, log lines, checkpoints, steps, extensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from rf_jobs.client.manager import QueueManager
from rf_jobs.core.records import clip
from rf_jobs.core.revealing import Words, sealed_message
from rf_jobs.model import codec
from rf_jobs.model.context import JobContext
from rf_jobs.model.desk import Dispatcher
from rf_jobs.store import batch_calls
from rf_jobs.words.errors import StaleLease
from rf_jobs.worker.reports import Progress, log_line

MAX_PROGRESS_MESSAGE = 1_000
MAX_SEALED_MESSAGE, MAX_SEALED_BYTES = 2_000, 2_800
"""Of an encrypted job: characters of a line, and bytes with its fields."""


class Reports(Protocol):
    """Where news of jobs go: to the store, or out of a process of one job to its worker."""

    @property
    def keeps_lines(self) -> bool: ...
    def write(self, ctx: JobContext, line: bytes) -> None: ...
    def progress(self, ctx: JobContext, progress: Progress) -> None: ...
    async def settle(self, ctx: JobContext) -> None: ...


class StoreDesk:
    """Serves the contexts of one worker."""

    def __init__(self, manager: QueueManager, reports: Reports, on_extend: Callable[[JobContext, float], None]) -> None:
        self.manager: Dispatcher | None = manager
        self._store = manager.store
        self._keyring = manager.protection.keyring
        self._reports = reports
        self._on_extend = on_extend

    def write(self, ctx: JobContext, level: int, message: str, fields: dict[str, Any]) -> None:
        """Keep a line of the job's log. From any thread."""
        if self._reports.keeps_lines:
            if ctx.is_sealed:
                message, fields = self._closed_words(ctx, "log", message, fields), {}
            self._reports.write(ctx, log_line(level, message, ctx.attempt, fields))

    def tell_progress(self, ctx: JobContext, current: float, total: float, message: str) -> None:
        """Keep how far it is; the newest is what counts. From any thread."""
        message = clip(message, MAX_PROGRESS_MESSAGE)
        if ctx.is_sealed and message:
            message = self._closed_words(ctx, "progress", message)
        self._reports.progress(ctx, (current, total, message))

    async def settle(self, ctx: JobContext) -> None:
        """Return when the store has what the attempt said."""
        await self._reports.settle(ctx)

    async def keep_checkpoint(self, ctx: JobContext, state: Any) -> None:
        """Raises ``StaleLease``, ``SerializationError`` or ``BackendError``: the handler must not believe it is saved."""
        await self._keep(ctx, "checkpoint", codec.encode_value(state, "the checkpoint"))

    async def load_checkpoint(self, ctx: JobContext) -> Any:
        """The last checkpoint of any attempt, None where there is none."""
        data = await self._store.run(self._store.commands.kept("checkpoint", ctx.id, ctx.queue))
        return None if data is None else codec.decode_value(self._keyring.open_value("checkpoint", ctx.id, data))

    async def load_inputs(self, ctx: JobContext) -> dict[str, Any]:
        """What the jobs that it waited for returned, by their ids. Raises ``BackendError`` or ``MissingKey``."""
        found = await self._store.run(batch_calls.inputs(self._store.commands, ctx.id, ctx.queue))
        opened = self._keyring.open_value
        return {parent: codec.decode_value(opened("result", parent, data)) for parent, data in found.items()}

    async def keep_step(self, ctx: JobContext, name: str, value: Any) -> Any:
        """Keep a step's answer, and answer with it as a later attempt will get it. Raises as ``keep_checkpoint``."""
        data = codec.encode_value(value, f"the answer of step {name!r}")
        await self._keep(ctx, "steps", data, name)
        return codec.decode_value(data)

    async def load_steps(self, ctx: JobContext) -> dict[str, Any]:
        """The answers of all steps that are done. Raises ``BackendError``."""
        found = await self._store.run(self._store.commands.steps(ctx.id, ctx.queue))
        opened = self._keyring.open_value
        return {name: codec.decode_value(opened("steps", ctx.id, data)) for name, data in found.items()}

    async def _keep(self, ctx: JobContext, family: str, value: bytes, step: str = "") -> None:
        if ctx.is_sealed:
            value = self._keyring.seal_value(family, ctx.id, value)
        if not await self._store.run(self._store.commands.keep(family, ctx.id, ctx.token, value, step, ctx.queue)):
            raise StaleLease(f"the lease of job {ctx.id} is no longer held; stop, another worker has or had the job")

    def _closed_words(self, ctx: JobContext, kind: str, message: str, fields: dict[str, Any] | None = None) -> str:
        """Sealed text takes more room: what is too long for a line of the log is cut."""
        words = Words(clip(message, MAX_SEALED_MESSAGE), fields or {})
        if len(msgspec.json.encode(words, enc_hook=str)) > MAX_SEALED_BYTES:
            words = Words(clip(message, MAX_SEALED_MESSAGE // 3))
        return sealed_message(self._keyring, kind, ctx.id, words)

    def extend(self, ctx: JobContext, by: float) -> None:
        """Move the deadline."""
        self._on_extend(ctx, by)
