"""Jobs of which something is encrypted, in a module that child processes can import; and settings with keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

from rf_jobs import (
    Encrypted,
    Fail,
    Job,
    JobContext,
    JobsSettings,
    QueueManager,
    SecuritySettings,
    Settings,
    Snooze,
)
from rf_jobs.words.secret_keys import SecretKey

QUEUE = "sealed"
CANARY = "canary-4711-é"
"""What must be nowhere."""


def key(name: str, fill: int = 0) -> str:
    """A key as the settings have it; the same each time."""
    return SecretKey(name, bytes([fill or sum(name.encode()) % 251]) * 32).text()


def settings(
    redis_url: str, *encryption: str, signing: tuple[str, ...] = (), required: bool = False, **jobs: Any
) -> Settings:
    return Settings(
        jobs=JobsSettings(redis_url=redis_url, **jobs),
        security=SecuritySettings(encryption_keys=encryption, signing_keys=signing, require_signatures=required),
    )


class Patient(Job, queue=QUEUE, max_attempts=1):
    """Two encrypted fields among others."""

    number: int
    name: Encrypted[str]
    history: Encrypted[dict[str, list[str]] | None] = None
    ward: str = "A"

    async def handle(self, ctx: JobContext) -> list[Any]:
        return [self.number, len(self.name), self.history, self.ward]


class Secret(Job, queue=QUEUE, max_attempts=2, backoff=0, encrypt=True):
    """All of it is encrypted."""

    text: str
    fail: bool = False

    async def handle(self, ctx: JobContext) -> str:
        ctx.log(f"working on {self.text}", about=self.text)
        await ctx.progress(1, 2, f"half of {self.text}")
        await ctx.step("think", lambda: [self.text, ctx.attempt])
        if ctx.attempt == 1:
            await ctx.checkpoint({"seen": self.text})
            raise RuntimeError(f"not with {self.text}")
        if self.fail:
            raise Fail(f"never with {self.text}")
        if await ctx.step("done", lambda: ctx.attempt) != 2:
            raise Snooze(60, f"not yet {self.text}")
        return f"{ctx.state['seen']} again"


class Apart(Job, queue=QUEUE, executor="process", max_attempts=1, timeout=30, encrypt=True):
    """Runs in a process of its own."""

    text: str
    fail: bool = False

    def handle(self, ctx: JobContext) -> str:
        ctx.log(f"apart with {self.text}")
        if self.fail:
            raise ValueError(f"what is {self.text}")
        return self.text.upper()


class Follows(Job, queue=QUEUE, max_attempts=1):
    """Answers with the length of what the job before it answered with."""

    async def handle(self, ctx: JobContext) -> int:
        return len(ctx.previous)


class Together(Job, queue=QUEUE, many=10, many_wait=0.2, encrypt=True):
    """Runs several at once."""

    text: str

    @classmethod
    async def handle_many(cls, jobs: list[Together], ctxs: list[JobContext]) -> list[str]:
        return [job.text for job in jobs]


class Bulky(Job, queue=QUEUE, max_attempts=1):
    """May be large."""

    blob: str

    async def handle(self, ctx: JobContext) -> int:
        return len(self.blob)


class BulkySecret(Job, queue=QUEUE, max_attempts=1, encrypt=True):
    """Large and encrypted."""

    blob: str

    async def handle(self, ctx: JobContext) -> int:
        return len(self.blob)


class Shelf:
    """A payload store in this process."""

    payloads: ClassVar[dict[str, bytes]] = {}

    async def put(self, name: str, data: bytes) -> None:
        self.payloads[name] = data

    async def get(self, name: str) -> bytes | None:
        return self.payloads.get(name)

    async def delete(self, name: str) -> None:
        self.payloads.pop(name, None)


def files_of(folder: Path) -> list[Path]:
    """The payloads in a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


async def stored(manager: QueueManager, job_id: UUID) -> bytes:
    """A job's envelope, as it lies in the store."""
    (data,) = await manager.store.run(manager.store.commands.envelopes([str(job_id)]))
    assert data is not None
    return data


async def write(manager: QueueManager, job_id: UUID, data: bytes) -> None:
    """Put another envelope in its place, as somebody can who can write to the server."""
    await manager.store.client.set(manager.store.keys.of("job", str(job_id)), data)
