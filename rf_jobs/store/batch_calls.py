"""Calls about batches: groups of jobs that end together. A chain is one whose members wait for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.commands import Commands


@dataclass(frozen=True)
class NewBatch:
    """A batch to be opened."""

    id: str
    outer: str
    """The batch that it is a member of, '' for none."""
    fields: Mapping[str, str | bytes]


def open_batches(batches: Sequence[NewBatch]) -> Call[str]:
    """Make them, outer ones first. Answers ``known`` where the first is there already, completely dispatched; or what its outer
    batch is that takes no more members; else ''."""
    args: list[Arg] = []
    for batch in batches:
        args += (batch.id, batch.outer, len(batch.fields))
        for name, value in batch.fields.items():
            args += (name, value)
    return Call("dispatch", args, text, "batch_open")


def seal(commands: Commands, ids: Sequence[str]) -> Call[None]:
    """Their dispatch is complete; inner ones first."""
    return Call("dispatch", (*commands.retention.args(), *ids), lambda _: None, "batch_seal", 0)


def stop(commands: Commands, batch: str, reason: str) -> Call[bool]:
    """Cancel one. Answers False where it was over, or is not known."""
    return Call("admin", (*commands.retention.args(), batch, reason), lambda r: bool(r[0]), "batch_stop", 1)


def fields(commands: Commands, batch: str) -> Call[dict[str, str]]:
    """What is kept of a batch; empty where it is not known."""
    return Call("read", ("HGETALL", commands.keys.of("batch", batch)), pairs)


def pending(commands: Commands, batch: str) -> Call[int]:
    """How many members have not ended."""
    return Call("read", ("SCARD", commands.keys.of("pending", batch)), int)


def failed(commands: Commands, batch: str) -> Call[int]:
    """How many members ended, and did not complete."""
    return Call("read", ("SCARD", commands.keys.of("failed", batch)), int)


def failed_ids(commands: Commands, batch: str) -> Call[list[str]]:
    """Members that did not complete: jobs, and inner batches."""
    return Call("read", ("SMEMBERS", commands.keys.of("failed", batch)), lambda r: sorted(texts(list(r))))


def open_count(commands: Commands) -> Call[int]:
    """How many batches and chains are not over."""
    return Call("read", ("ZCARD", commands.keys.of("batches", "open")), int)


def listed(commands: Commands, offset: int, limit: int) -> Call[list[str]]:
    """Ids of batches, the newest first."""
    return Call("read", ("ZREVRANGE", commands.keys.of("batches"), offset, offset + limit - 1), texts)


def open_ids(commands: Commands, offset: int, limit: int) -> Call[list[str]]:
    """Ids of batches that are not over, the oldest first."""
    return Call("read", ("ZRANGE", commands.keys.of("batches", "open"), offset, offset + limit - 1), texts)


def parent_count(commands: Commands, job_id: str) -> Call[int]:
    """How many a blocked job still waits for."""
    return Call("read", ("SCARD", commands.keys.of("parents", job_id)), int)


def parents(commands: Commands, job_id: str, most: int) -> Call[list[str]]:
    """Some of those that a blocked job waits for."""
    return Call("read", ("SRANDMEMBER", commands.keys.of("parents", job_id), most), lambda r: sorted(texts(r)))


def inputs(commands: Commands, job_id: str) -> Call[dict[str, bytes]]:
    """What the jobs that this one waited for answered with, as JSON, by their ids."""

    def read(reply: Mapping[bytes, bytes]) -> dict[str, bytes]:  # redis-py makes a dict of it
        return {text(parent): value for parent, value in reply.items()}

    return Call("read", ("HGETALL", commands.keys.of("inputs", job_id)), read)
