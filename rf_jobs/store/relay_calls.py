"""Calls of relays, which move jobs from databases to the server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rf_jobs.store.calls import Call
from rf_jobs.store.commands import Commands


def on_disk(commands: Commands, timeout_ms: int) -> list[Call[Any]]:
    """To be run together: the last one answers whether all that was written so far is on the servers' disks, within this
    time."""
    marks: list[Call[Any]] = [
        Call("admin", ("SET", keys.of("mark"), "1", "PX", 60_000), bool, shard=number)
        for number, keys in enumerate(commands.shards.keys)
    ]
    wait = commands.everywhere(
        lambda _, number: Call("read", ("WAITAOF", 1, 0, timeout_ms), lambda r: int(r[0]) > 0, shard=number), all
    )
    return [*marks, wait]


def forget(commands: Commands, ids: Sequence[str]) -> Call[int]:
    """These rows of an outbox are gone for good."""
    return commands.everywhere(
        lambda keys, number: Call("admin", ("UNLINK", *(keys.of("relayed", each) for each in ids)), int, shard=number),
        sum,
    )
