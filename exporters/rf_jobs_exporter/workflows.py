"""What is open of batches and chains, which consequences are not drawn, and how much of each limit is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rf_jobs.client.limits import LimitInfo
from rf_jobs.client.manager import QueueManager
from rf_jobs.store import batch_calls
from rf_jobs.store.calls import Call
from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import Reading

MOST_BATCHES = 1000
"""The pending members of so many open batches are counted: the oldest."""
MOST_LIMITS = 200


async def workflow_readings(manager: QueueManager) -> list[Reading]:
    """Raises ``BackendError``."""
    commands, store = manager.store.commands, manager.store
    calls: list[Call[Any]] = [
        batch_calls.open_count(commands),
        batch_calls.open_ids(commands, 0, MOST_BATCHES),
        commands.unsettled(),
        commands.skipped_count(),
    ]
    count, ids, unsettled, skipped = await store.run_many(calls)
    pending = await store.run_many([batch_calls.pending(commands, batch) for batch in ids]) if ids else []
    return [
        Reading(names.BATCHES_OPEN, (), float(count)),
        Reading(names.BATCH_PENDING, (), float(sum(pending))),
        Reading(names.CONSEQUENCES_UNSETTLED, (), float(unsettled)),
        Reading(names.CONSEQUENCES_SKIPPED, (), float(skipped)),
        *_limits((await manager.limits.list())[:MOST_LIMITS]),
    ]


def _limits(limits: Sequence[LimitInfo]) -> Iterator[Reading]:
    for limit in limits:
        if limit.concurrency is not None:
            yield Reading(names.LIMIT_USED, (limit.name,), min(1.0, limit.running / limit.concurrency))
            yield Reading(names.LIMIT_HELD, (limit.name,), float(limit.held))
