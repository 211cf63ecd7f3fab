"""Calls about batches: groups of jobs that end together. A chain is one whose members wait for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.commands import Commands
from rf_jobs.store.keys import plain


@dataclass(frozen=True)
class NewBatch:
    """A batch to be opened."""

    id: str
    outer: str
    """The batch that it is a member of, '' for none; as one in its shard has to name it."""
    fields: Mapping[str, str | bytes]
    shard: int = 0
    """Where it is to be."""


def open_batches(batches: Sequence[NewBatch]) -> Call[str]:
    """Make them, outer ones first; all of one shard. Answers ``known`` where the first is there already, completely dispatched;
    or what its outer batch is that takes no more members; else ''."""
    args: list[Arg] = []
    for batch in batches:
        args += (batch.id, batch.outer, len(batch.fields))
        for name, value in batch.fields.items():
            args += (name, value)
    return Call("dispatch", args, lambda r: text(r[0]), "batch_open", 1, batches[0].shard)


def expect(shard: int, batch: str, members: Sequence[str], *, behind: bool = False) -> Call[list[str]]:
    """Members for a batch of this shard are about to be dispatched in others. Answers with what the batch is that takes no more,
    '' for nothing; ``behind``: and with the last steps of the chain behind which each of them goes."""
    return Call("dispatch", (batch, int(behind), *members), texts, "batch_expect", shard=shard)


def seal(commands: Commands, batches: Sequence[NewBatch]) -> Call[None]:
    """Their dispatch is complete; inner ones first."""
    homes: dict[int, list[str]] = {}
    for batch in batches:
        homes.setdefault(batch.shard, []).append(batch.id)
    retention = commands.retention.args()
    parts = [
        Call("dispatch", (*retention, *ids), lambda _: None, "batch_seal", 0, number) for number, ids in homes.items()
    ]
    return parts[0] if len(parts) == 1 else Call("dispatch", (), lambda _: None, parts=tuple(parts))


def stop(commands: Commands, batch: str, reason: str) -> Call[bool]:
    """Cancel one. Answers False where it was over, or is not known."""
    args = (*commands.retention.args(), batch, reason)
    return commands.everywhere(
        lambda _, number: Call("admin", args, lambda r: bool(r[0]), "batch_stop", 1, number), any
    )


def fields(commands: Commands, batch: str) -> Call[dict[str, str]]:
    """What is kept of a batch; empty where it is not known."""

    def read(reply: dict[bytes, bytes]) -> dict[str, str]:
        found = pairs(reply)
        return {name: plain(value) if name in _REFERENCES else value for name, value in found.items()}

    return commands.by_id(lambda keys: ("HGETALL", keys.of("batch", batch)), read)


_REFERENCES = ("first_failed", "last")


def pending(commands: Commands, batch: str) -> Call[int]:
    """How many members have not ended."""
    return commands.everywhere(
        lambda keys, number: Call("read", ("SCARD", keys.of("pending", batch)), int, shard=number), sum
    )


def is_dispatched(commands: Commands, batch: str) -> Call[bool]:
    """Whether all of it is there, or, unless it is known, nothing of it."""

    def read(reply: list[bytes | None]) -> bool:
        state, sealed = reply
        return state is None or sealed is not None

    return commands.everywhere(
        lambda keys, number: Call("read", ("HMGET", keys.of("batch", batch), "state", "sealed"), read, shard=number),
        all,
    )


def failed(commands: Commands, batch: str) -> Call[int]:
    """How many members ended, and did not complete."""
    return commands.everywhere(
        lambda keys, number: Call("read", ("SCARD", keys.of("failed", batch)), int, shard=number), sum
    )


def failed_ids(commands: Commands, batch: str) -> Call[list[str]]:
    """Members that did not complete: jobs, and inner batches."""
    return commands.by_id(lambda keys: ("SMEMBERS", keys.of("failed", batch)), _plain)


def open_count(commands: Commands) -> Call[int]:
    """How many batches and chains are not over."""
    return commands.everywhere(
        lambda keys, number: Call("read", ("ZCARD", keys.of("batches", "open")), int, shard=number), sum
    )


def listed(commands: Commands, offset: int, limit: int) -> Call[list[str]]:
    """Ids of batches, the newest first."""
    return commands.listed("batches", "", offset, limit, newest_first=True)


def open_ids(commands: Commands, offset: int, limit: int) -> Call[list[str]]:
    """Ids of batches that are not over, the oldest first."""
    return commands.listed("batches", "open", offset, limit)


def parent_count(commands: Commands, job_id: str) -> Call[int]:
    """How many a blocked job still waits for."""
    return commands.by_id(lambda keys: ("SCARD", keys.of("parents", job_id)), int)


def parents(commands: Commands, job_id: str, most: int) -> Call[list[str]]:
    """Some of those that a blocked job waits for."""
    return commands.by_id(lambda keys: ("SRANDMEMBER", keys.of("parents", job_id), most), _plain)


def inputs(commands: Commands, job_id: str, queue: str | None = None) -> Call[dict[str, bytes]]:
    """What the jobs that this one waited for answered with, as JSON, by their ids."""

    def read(reply: Mapping[bytes, bytes]) -> dict[str, bytes]:  # redis-py makes a dict of it
        return {text(parent): value for parent, value in reply.items()}

    return commands.by_id(lambda keys: ("HGETALL", keys.of("inputs", job_id)), read, queue=queue)


def _plain(refs: Sequence[bytes]) -> list[str]:
    return sorted(plain(ref) for ref in texts(list(refs)))
