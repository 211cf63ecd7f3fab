"""Moments at which a workflow could go wrong, one by one: with consequences left in the outbox, replays meanwhile, retention of
nothing. What the state machines of this folder found, and what a sceptic's reading did."""

from __future__ import annotations

import pytest

from rf_jobs.store import batch_calls, limit_calls
from rf_jobs.store.options import Depends, Options
from rf_jobs.words.states import State
from tests.property.flow import KEEP_NONE, Flow, bounded


@pytest.fixture
def forgetful(flow: Flow) -> Flow:
    """Nothing that is over is kept."""
    flow.commands.retention = KEEP_NONE
    return flow


def behind(*parents: str, policy: str = "cancel", batch: str = "") -> Options:
    return Options(depends=Depends(list(parents), policy), batch=batch)


# --- leaks ---------------------------------------------------------------------------------------------------------------


def test_a_parent_that_is_gone_leaves_nothing_behind(forgetful: Flow) -> None:
    forgetful.add(behind(forgetful.add()))
    forgetful.perform("bury", forgetful.look().order("ready", "a")[0])
    assert forgetful.look().job_ids() == set()


def test_a_cleared_parent_leaves_nothing_behind(flow: Flow) -> None:
    child = flow.add(behind(flow.add()))
    flow.run(flow.commands.clear("a", State.READY, 10))
    assert flow.states() == {child: "cancelled"}


def test_what_a_batch_undid_ends_with_the_batch(flow: Flow) -> None:
    batch = flow.open()
    member, child = flow.add(Options(batch=batch)), flow.add(behind(batch))
    flow.seal(batch)
    flow.perform("bury", member)
    assert flow.states()[child] == "cancelled"
    assert flow.look().ttl["undone", batch] > 0


def test_a_child_goes_from_one_failed_parent_to_a_batch_that_failed(flow: Flow) -> None:
    batch, parent = flow.open(), flow.add()
    member, child = flow.add(Options(batch=batch)), flow.add(behind(parent, batch))
    flow.seal(batch)
    flow.perform("bury", parent)
    flow.perform("bury", member)
    flow.revive(parent)
    assert flow.states()[child] == "cancelled"
    flow.perform("complete", parent)
    flow.revive(member)
    flow.perform("complete", member)
    flow.drain()
    assert flow.states()[child] == "completed"


# --- replays -------------------------------------------------------------------------------------------------------------


def test_a_replayed_parent_is_waited_for_together_with_the_others(flow: Flow) -> None:
    one, two = flow.add(), flow.add()
    child = flow.add(behind(one, two))
    flow.perform("bury", one)
    flow.revive(one)
    flow.perform("complete", one)
    assert flow.states()[child] == "blocked"
    flow.perform("complete", two)
    assert flow.states()[child] == "ready"


def test_a_replay_before_the_failure_was_told_takes_it_back(flow: Flow) -> None:
    batch = flow.open()
    one = flow.add(Options(batch=batch))
    two, child = flow.add(Options(batch=batch)), flow.add(behind(one))
    flow.seal(batch)
    with bounded(0, 1):
        flow.perform("bury", one)
        assert flow.outbox()
    flow.revive(one)
    flow.settle()
    assert flow.states() == {one: "ready", two: "ready", child: "blocked"}
    assert flow.drain()
    assert set(flow.states().values()) == {"completed"}
    assert flow.batch(batch)["state"] == "completed"
    assert flow.fired(batch) == ["then", "finally"]


def test_a_replay_before_its_batch_heard_of_the_failure(flow: Flow) -> None:
    batch = flow.open()
    one, two = flow.add(Options(batch=batch)), flow.add(Options(batch=batch))
    flow.seal(batch)
    with bounded(1, 1):
        flow.perform("bury", one)
    assert flow.outbox()
    flow.revive(one)
    flow.settle()
    assert flow.states() == {one: "ready", two: "ready"}
    flow.drain()
    assert flow.fired(batch) == ["then", "finally"]


@pytest.mark.parametrize(("policy", "state"), [("cancel", "cancelled"), ("dead", "dead"), ("run", "ready")])
@pytest.mark.parametrize("before", [True, False])
def test_what_becomes_of_those_behind_a_failure(flow: Flow, policy: str, state: str, before: bool) -> None:
    parent, other = flow.add(), flow.add()
    if not before:
        flow.perform("bury", parent)
    child = flow.add(behind(parent, other, policy=policy))
    if before:
        flow.perform("bury", parent)
    assert flow.states()[child] == ("blocked" if policy == "run" else state)
    flow.perform("complete", other)
    assert flow.states()[child] == state


@pytest.mark.parametrize("verb", ["complete", "bury"])
def test_a_replay_that_is_over_before_its_batch_heard_of_it(flow: Flow, verb: str) -> None:
    batch = flow.open()
    one, two = flow.add(Options(batch=batch)), flow.add(Options(batch=batch))
    flow.seal(batch)
    flow.perform("bury", one)
    assert flow.states()[two] == "cancelled"
    with bounded(0, 1):
        flow.revive(one)
    flow.finish(flow.fetch(1), verb)
    flow.settle()
    flow.drain()
    assert flow.states()[two] == "completed"
    assert flow.batch(batch)["state"] == ("completed" if verb == "complete" else "failed")


@pytest.mark.parametrize("verb", ["complete", "bury"])
def test_a_replay_that_ends_before_it_was_told(flow: Flow, verb: str) -> None:
    batch = flow.open()
    one = flow.add(Options(batch=batch))
    children = [flow.add(behind(one)) for _ in range(3)]
    flow.seal(batch)
    flow.perform("bury", one)
    with bounded(0, 1):
        flow.revive(one)
        jobs = [job for job in flow.fetch(10) if job.id == one]
        flow.finish(jobs, verb)
    with bounded(3, 1):
        flow.settle()
    assert flow.batch(batch)["state"] == ("completed" if verb == "complete" else "failed")
    assert {flow.states()[child] for child in children} == {"ready" if verb == "complete" else "cancelled"}


def test_a_replayed_batch_stops_dooming_its_members(flow: Flow) -> None:
    batch = flow.open()
    one = flow.add(Options(batch=batch))
    others = [flow.add(Options(batch=batch)) for _ in range(5)]
    flow.seal(batch)
    with bounded(3, 1):
        flow.perform("bury", one)
        assert flow.outbox()
        flow.revive(one)
        flow.settle()
    assert {flow.states()[other] for other in others} == {"ready"}
    flow.add(Options(batch=batch))  # it takes members again


def test_a_replayed_dependent_does_not_listen_to_its_parents(flow: Flow) -> None:
    """It was replayed without them; while a limit holds it back it is blocked, as those are that wait."""
    one, two = flow.add(), flow.add()
    child = flow.add(behind(one, two, policy="dead"))
    flow.perform("bury", one)
    assert flow.states()[child] == "dead"
    flow.revive(child)
    flow.run(limit_calls.hold(flow.commands, "class:job", 0))
    left = flow.fetch(10)
    assert left == []
    for keys in flow.shards.keys:
        flow.client.delete(keys.of("holds"))
    flow.run(flow.commands.cancel(two, "a", "no", flow.commands.retention))
    assert flow.states()[child] == "blocked"
    flow.client.flushall()


def test_a_child_that_came_after_its_parent_had_died_runs_after_the_replay(flow: Flow) -> None:
    parent = flow.add()
    flow.perform("bury", parent)
    child = flow.add(behind(parent))
    assert flow.states()[child] == "cancelled"
    flow.revive(parent)
    assert flow.states()[child] == "blocked"
    flow.perform("complete", parent)
    assert flow.states()[child] == "ready"


def test_a_step_that_is_appended_may_wait_for_others_too(flow: Flow) -> None:
    first = flow.new_id()
    chain = flow.open(kind="chain", last=first)
    flow.enqueue([first], Options(batch=chain))
    other = flow.add()
    flow.seal(chain)
    last = flow.add(Options(batch=chain, behind=True, depends=Depends([other], "cancel")))
    flow.perform("complete", first)
    assert flow.states()[last] == "blocked"
    flow.perform("complete", other)
    assert flow.states()[last] == "ready"


# --- batches -------------------------------------------------------------------------------------------------------------


def test_nothing_is_added_to_a_batch_that_is_over_as_a_group_either(flow: Flow) -> None:
    batch = flow.open()
    member = flow.add(Options(batch=batch))
    flow.seal(batch)
    flow.perform("complete", member)
    assert flow.run(batch_calls.open_batches([flow.new_batch(flow.new_id(), batch)])) == "completed"
    assert flow.batch(batch)["total"] == "1"
    assert flow.run(batch_calls.open_batches([flow.new_batch(flow.new_id(), "nobody")])) == "unknown"


def test_a_cancelled_outer_batch_cancels_its_inner_ones(flow: Flow) -> None:
    outer = flow.open()
    inner = flow.open(outer=outer)
    flow.add(Options(batch=inner))
    flow.seal(inner, outer)
    assert flow.stop(outer)
    assert [flow.batch(batch)["state"] for batch in (outer, inner)] == ["cancelled", "cancelled"]
    assert sorted(flow.fired(inner) + flow.fired(outer)) == ["finally", "finally"]


def test_a_batch_that_failed_before_all_of_it_was_there_can_not_complete(flow: Flow) -> None:
    """What was refused would be missing."""
    batch = flow.open()
    one = flow.add(Options(batch=batch))
    flow.perform("bury", one)
    said = flow.enqueue([flow.new_id()], Options(batch=batch))
    assert said == {0: ("batch", "cancelled")}
    flow.seal(batch)
    flow.revive(one)
    flow.perform("complete", one)
    assert flow.batch(batch)["state"] == "failed"
    assert "then" not in flow.fired(batch)


def test_a_step_whose_predecessor_is_over_and_gone(forgetful: Flow) -> None:
    """A worker may be faster than the dispatch of a chain."""
    chain = forgetful.open(kind="chain")
    one = forgetful.new_id()
    forgetful.enqueue([one], Options(batch=chain, awaited=True))
    [job] = forgetful.fetch(1)
    forgetful.finish([job], "complete", b"41")
    two = forgetful.add(behind(one, batch=chain))
    forgetful.seal(chain)
    assert forgetful.store.run(batch_calls.inputs(forgetful.commands, two)) == {one: b"41"}
    assert forgetful.drain()[0] == two
    assert forgetful.batch(chain)["state"] == "completed"
    assert forgetful.batch(chain)["total"] == "2"


def test_a_member_that_was_refused_is_missing(flow: Flow) -> None:
    """Its parent was removed between the look for it and the dispatch."""
    batch = flow.open()
    said = flow.enqueue([flow.new_id()], behind(flow.new_id(), batch=batch))
    assert said[0][0] == "no_parent"
    flow.seal(batch)
    assert flow.batch(batch)["state"] == "failed"


def test_a_parked_member_that_is_buried_ends_its_batch(flow: Flow) -> None:
    batch = flow.open()
    member, child = flow.add(Options(batch=batch)), flow.add(behind(batch))
    flow.seal(batch)
    flow.perform("park", member)
    assert flow.batch(batch)["state"] == "running"
    flow.run(flow.commands.bury_parked("a", -1, 10, flow.commands.retention, b"x", b"y"))
    assert flow.look().order("parked", "a") == []
    assert flow.batch(batch)["state"] == "failed"
    assert flow.states()[child] == "cancelled"


def test_what_is_over_and_gone_does_not_run_again_where_its_batch_is_sent_again(forgetful: Flow) -> None:
    batch = forgetful.open()
    over = forgetful.add(Options(batch=batch))
    forgetful.perform("complete", over)
    assert over not in forgetful.look().job_ids()
    said = forgetful.enqueue([over, forgetful.new_id()], Options(batch=batch))
    assert {at: code for at, (code, _) in said.items()} == {0: "known"}
    forgetful.seal(batch)
    assert over not in forgetful.drain()
    assert (forgetful.batch(batch)["total"], forgetful.batch(batch)["state"]) == ("2", "completed")
