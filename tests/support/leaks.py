"""What a test must not leave behind: tasks of ours that go on, keys that nobody will ever remove."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import redis

from rf_jobs.store.keys import KEYS

SINGLETONS = {key.name for key in KEYS if ":" not in key.name}
FAMILIES = {key.name.partition(":")[0] for key in KEYS if ":" in key.name}
EXPIRING = {
    "bucket",
    "ended",
    "failures",
    "fair",
    "slots",
    "starts",
    "tripped",
    "mark",
    "relayed",
    "scheduler",
    "worker",
    "classes",
    "cancels",
    "live",
    "flushed",
    "result",
}
"""Families whose keys end by themselves; all others last for ever, or as long as a job that the doctor's walk finds."""
PATIENCE_SECONDS = 2.0


def strays(client: redis.Redis) -> list[str]:
    """What is wrong with the server's keys, a sentence each: those that no namespace and no family of ours has, and those
    that should expire and do not."""
    names = [name.decode(errors="replace") for name in client.keys("*") if isinstance(name, bytes)]
    wrong = [f"{name} is of no family in rf_jobs/store/keys.py" for name in names if not _is_ours(name)]
    ending = [name for name in names if _is_ours(name) and _family(name) in EXPIRING]
    pipe = client.pipeline(transaction=False)
    for name in ending:
        pipe.ttl(name)
    return wrong + [f"{name} never expires" for name, ttl in zip(ending, pipe.execute(), strict=True) if ttl == -1]


def _is_ours(name: str) -> bool:
    found = re.fullmatch(r"\{[A-Za-z0-9_.\-/]{1,64}\}:([a-z]+)(:.+)?", name)
    return found is not None and found[1] in (FAMILIES if found[2] else SINGLETONS)


def _family(name: str) -> str:
    return name.split(":")[1]


async def tasks_left() -> list[str]:
    """Our tasks that this loop still has, once those that were cancelled have had time to end."""
    left = _ours()
    if left:
        await asyncio.wait(left, timeout=PATIENCE_SECONDS)
    return sorted(task.get_name() for task in _ours())


def _ours() -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task.get_name().startswith("rf-jobs-")}
