"""``Notes``: what a job said where no worker runs it, for tests to look at."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from rf_jobs.model import codec


@dataclass(frozen=True)
class Line:
    """One ``ctx.log``."""

    level: int
    message: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        told = "".join(f" {name}={value!r}" for name, value in self.fields.items())
        return f"{logging.getLevelName(self.level)} {self.message}{told}"


class Notes:
    """Serves a context that has no worker: it keeps what the job says, in order. Checkpoints and the answers of steps are
    checked and read back as the store would, so that a test fails where a worker would."""

    def __init__(self, manager: Any = None) -> None:
        self.manager: Any = manager
        self.lines: list[Line] = []
        """What ``ctx.log`` wrote."""
        self.progress: list[tuple[float, float, str]] = []
        """What ``ctx.progress`` said: current, total, message."""
        self.checkpoints: list[Any] = []
        """What ``ctx.checkpoint`` saved, as a later attempt would find it."""
        self.inputs: dict[str, Any] = {}
        """What the jobs that it waited for returned, by their ids: what the handler finds in ``ctx.inputs``."""
        self.steps: dict[str, Any] = {}
        """The answers of ``ctx.step``, by name."""
        self.extended = 0.0
        """Seconds that ``ctx.extend`` asked for in all."""

    @property
    def messages(self) -> list[str]:
        """The messages of ``lines``."""
        return [line.message for line in self.lines]

    def write(self, ctx: object, level: int, message: str, fields: dict[str, Any]) -> None:
        self.lines.append(Line(level, message, dict(fields)))

    def tell_progress(self, ctx: object, current: float, total: float, message: str) -> None:
        self.progress.append((current, total, message))

    async def keep_checkpoint(self, ctx: object, state: Any) -> None:
        """Raises ``SerializationError``."""
        self.checkpoints.append(codec.decode_value(codec.encode_value(state, "the checkpoint")))

    async def load_checkpoint(self, ctx: object) -> Any:
        return self.checkpoints[-1] if self.checkpoints else None

    async def load_inputs(self, ctx: object) -> dict[str, Any]:
        return dict(self.inputs)

    async def keep_step(self, ctx: object, name: str, value: Any) -> Any:
        """Raises ``SerializationError``."""
        kept = self.steps[name] = codec.decode_value(codec.encode_value(value, f"the answer of step {name!r}"))
        return kept

    async def load_steps(self, ctx: object) -> dict[str, Any]:
        return dict(self.steps)

    async def settle(self, ctx: object) -> None:
        """There is nobody to wait for."""

    def extend(self, ctx: object, by: float) -> None:
        self.extended += by
