"""Moments at which a lock, a slot or a limit could go wrong, one by one."""

from __future__ import annotations

import pytest

from rf_jobs.store import limit_calls
from rf_jobs.store.options import Options, Slot, Unique
from tests.property.flow import DELAYED, Flow

# --- locks and slots -----------------------------------------------------------------------------------------------------


def test_a_replayed_job_takes_its_lock_again_where_it_is_free(flow: Flow) -> None:
    asked = Options(unique=Unique("d", "done", 0, "return"))
    first = flow.add(asked)
    flow.perform("bury", first)
    assert not flow.client.exists("{rf}:unique:d")
    flow.revive(first)
    assert flow.enqueue([flow.new_id()], asked) == {0: ("unique", first)}
    flow.perform("complete", first)
    assert not flow.client.exists("{rf}:unique:d")


def test_a_distant_slot_is_not_forgotten(flow: Flow) -> None:
    asked = Options(slot=Slot("s", 1, 1000, "delay"))
    flow.add(asked, when=DELAYED)
    flow.add(Options(slot=Slot("s", 2, 1000, "delay")))
    assert flow.look().ttl["slots", "s"] > 10_000_000


# --- limits --------------------------------------------------------------------------------------------------------------


def limited(flow: Flow, n: int, **fields: str) -> list[str]:
    flow.run(limit_calls.define(flow.commands, "l", {"c": "1", **fields}))
    return [flow.add(Options(links=" ll")) for _ in range(n)]


def later(flow: Flow) -> None:
    """All that is to be looked at is so now."""
    for ref in flow.look().order("timers", ""):
        flow.client.zadd("{rf}:timers", {ref: 1})


def test_a_place_that_was_not_taken_goes_to_the_next(flow: Flow) -> None:
    _, two, three = limited(flow, 3)
    flow.finish(flow.fetch(3), "complete")
    assert flow.states()[two] == "ready"
    flow.run(flow.commands.cancel(two, "a", "no", flow.commands.retention))
    due = flow.look().zsets["timers", ""]["l"]
    assert due - flow.look().now_ms <= 5_000
    later(flow)
    flow.fetch(0)
    assert [job.id for job in flow.fetch(3)] == [three]


def test_a_place_is_not_kept_for_a_queue_that_is_paused(flow: Flow) -> None:
    first, second = limited(flow, 2)
    other = flow.add(Options(links=" ll"), "b")
    jobs = flow.fetch(3, ("a", "b"))
    assert [job.id for job in jobs] == [first]
    flow.run(flow.commands.pause("a", True))
    flow.finish(jobs, "complete")
    assert flow.states()[second] == "ready"
    assert flow.fetch(3, ("a", "b")) == []
    later(flow)
    flow.fetch(0)
    assert [job.id for job in flow.fetch(3, ("a", "b"))] == [other]


def test_a_limit_that_is_lifted_lets_all_go(flow: Flow) -> None:
    limited(flow, 1200)
    for _ in range(10):
        flow.fetch(200)
    assert flow.store.run(limit_calls.held(flow.commands, "l")) == 1199
    flow.run(limit_calls.define(flow.commands, "l", {}, ["c"]))
    for _ in range(5):
        flow.fetch(0)
        later(flow)
    assert flow.store.run(limit_calls.held(flow.commands, "l")) == 0
    assert not flow.client.exists("{rf}:refs:l")


@pytest.mark.parametrize("end", ["complete", "bury", "retry", "release", "crash", "reclaim"])
def test_whoever_ends_frees_its_place(flow: Flow, end: str) -> None:
    one, two = limited(flow, 2)
    jobs = flow.fetch(2)
    assert [job.id for job in jobs] == [one]
    if end == "reclaim":
        flow.client.zadd("{rf}:running:a", {one: 1})
        flow.run(flow.commands.reclaim(10, 3, flow.commands.retention, b'{"attempt":1}', ["a"]))
    else:
        flow.finish(jobs, end)
    assert flow.client.scard("{rf}:holders:l") == 0
    assert len(flow.fetch(2)) == 1
    assert flow.states()[two] in ("running", "blocked")


def test_a_rate_that_is_spent_is_looked_at_when_it_has_room(flow: Flow) -> None:
    flow.run(limit_calls.define(flow.commands, "r", {"r": "2", "p": "60000", "a": "sliding"}))
    for _ in range(3):
        flow.add(Options(links=" lr"))
    assert len(flow.fetch(3)) == 2
    due = flow.look().zsets["timers", ""]["r"]
    assert 50_000 < due - flow.look().now_ms <= 60_000


@pytest.mark.parametrize(("due", "state"), [("", "ready"), (DELAYED, "scheduled")])
def test_a_held_job_that_is_moved_is_held_no_more(flow: Flow, due: str, state: str) -> None:
    _, two = limited(flow, 2)
    flow.fetch(2)
    assert flow.states()[two] == "blocked"
    flow.run(flow.commands.move(two, "a", "due", due))
    assert flow.states()[two] == state
    assert "held" not in flow.look().meta(two)
    assert flow.look().order("held", "l") == []
