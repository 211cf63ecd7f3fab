"""Unique locks of a stand-in are those of the store: the same dispatches at the same times come to the same."""

from __future__ import annotations

import asyncio
from typing import Any, get_args
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from rf_jobs import DuplicateJob, Job, JobContext, QueueManager
from rf_jobs.client.pending import Pending
from rf_jobs.testing import Clock, FakeQueue
from rf_jobs.words.limits import OnConflict, Until


class Sync(Job, queue="sync"):
    tenant: str

    async def handle(self, ctx: JobContext) -> None: ...


Step = tuple[str, Any, Any, Any, Any]

steps = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.sampled_from(get_args(Until)),
        st.sampled_from(get_args(OnConflict)),
        st.sampled_from([10, 60]),
        st.sampled_from([0, 5, 30, 100]),
    ),
    min_size=1,
    max_size=12,
)


def asked(manager: QueueManager, step: Step) -> Pending[None]:
    tenant, until, on_conflict, window, _ = step
    if on_conflict == "debounce" and until == "done":
        until = "started"  # the other is refused
    limit = 40 if on_conflict == "debounce" else None
    return manager.dispatch(Sync(tenant=tenant)).unique_for(
        window, until=until, on_conflict=on_conflict, max_wait=limit
    )


async def answer(manager: QueueManager, step: Step, order: dict[UUID, int]) -> int | str:
    """Which dispatch it was, by its place: ids are drawn anew."""
    try:
        job_id = await asked(manager, step)
    except DuplicateJob:
        return "duplicate"
    return order.setdefault(job_id, len(order))


@settings(max_examples=25)
@given(story=steps)
def test_the_same_dispatches_come_to_the_same(story: list[Step], redis_url: str) -> None:
    asyncio.run(compare(story, redis_url))


async def compare(story: list[Step], url: str) -> None:
    fake = FakeQueue(url)
    async with QueueManager(url) as real:
        await real.store.drop_namespace()
        with Clock(real) as clock:
            clock.freeze()
            of_fake: dict[UUID, int] = {}
            of_real: dict[UUID, int] = {}
            for step in story:
                assert await answer(fake, step, of_fake) == await answer(real, step, of_real), step
                clock.advance(step[4])
            records = {order: await real.job(job_id) for job_id, order in of_real.items()}
            waiting = {
                order: (record.due_at - record.dispatched_at).total_seconds()
                if record.due_at and record.dispatched_at
                else 0
                for order, record in records.items()
                if record.state in ("ready", "scheduled")
            }
            assert {of_fake[one.id]: one.delay for one in fake} == waiting
