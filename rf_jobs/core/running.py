"""The running jobs that have run longest. Reads only."""

from __future__ import annotations

from collections.abc import Iterable

from rf_jobs.core.inspector import Inspector
from rf_jobs.core.records import JobRecord, whole
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.states import State

MOST = 500
"""Running jobs that are looked at: the store has them by the end of their leases, which says nothing of their start."""


async def longest_running(
    store: AsyncStore, inspector: Inspector, queues: Iterable[str], count: int
) -> list[JobRecord]:
    """Up to ``count`` of them, the longest first, in three round trips. Where more than ``MOST`` run, it is those of these."""
    commands = store.commands
    asked = [commands.range(State.RUNNING, queue, 0, MOST) for queue in queues]
    listed = await store.run_many(asked) if asked else []
    ids = [job_id for page in listed for job_id, _ in page][:MOST]
    if not ids:
        return []
    metas = await store.run_many([commands.meta(job_id) for job_id in ids])
    started = {job_id: whole(meta.get("epoch")) for job_id, meta in zip(ids, metas, strict=True)}
    longest = sorted((job_id for job_id in ids if started[job_id]), key=started.__getitem__)[:count]
    records = await inspector.records(longest)
    return [record for record in records if record.state == State.RUNNING]
