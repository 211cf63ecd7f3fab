"""In which order jobs of one queue leave it."""

from __future__ import annotations

from uuid import UUID

from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Draft


def test_jobs_that_came_within_one_millisecond_leave_in_the_order_in_which_they_came(redis_url: str) -> None:
    store = SyncStore(redis_url)
    # Ids that fall, so that a tie broken by id would turn the order around; and one call for each, in one packet.
    ids = [str(UUID(int=1000 - n)) for n in range(200)]
    store.run(store.commands.ping())
    pipe = store._routes.first.pipeline(transaction=False)
    store.run(store.commands.enqueue([Draft(str(UUID(int=2000)), "other", 1, "", b"{}")]))
    for each in ids:
        pipe.execute_command(*store.server.wire(store.commands.enqueue([Draft(each, "a", 1, "", b"{}")])))
    pipe.execute()
    fetched = store.run(store.commands.fetch("w", 1, 200, 10_000, ["a"]))
    store.close()
    assert [job.id for job in fetched.jobs] == ids
