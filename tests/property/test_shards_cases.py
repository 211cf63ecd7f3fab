"""The moments of ``test_flow_cases`` once more, with batches in another shard than their members, all that is said carried at
once. And moments that only shards have."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from rf_jobs.core.inspector import imbalance
from rf_jobs.store import batch_calls, shard_calls
from rf_jobs.store.calls import text
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.options import Depends, Options
from rf_jobs.store.shapes import Retention
from tests.property import snapshot
from tests.property.flow import EVENTS, Flow, Luck, bounded
from tests.property.sharded_flow import ShardedFlow
from tests.property.test_flow_cases import *  # noqa: F403 (each of its tests, with the fixture of this module)
from tests.property.test_flow_cases import behind


@pytest.fixture
def flow(server: EmbeddedServer) -> Iterator[ShardedFlow]:
    running = ShardedFlow(server.url)
    running.prompt = True
    yield running
    running.prompt = False
    running.settle()
    assert snapshot.faults(running.look()) == []
    survey = running.store.run(running.commands.survey())
    assert {queue.name: imbalance(queue) for queue in survey.queues} == {queue.name: 0 for queue in survey.queues}
    running.client.flushall()
    running.close()


# --- moments that only shards have ---------------------------------------------------------------------------------


@pytest.fixture
def slow(flow: ShardedFlow) -> ShardedFlow:
    """Nothing is carried unless the test does it."""
    flow.prompt = False
    return flow


def age(flow: ShardedFlow) -> None:
    """A quarter of an hour passes for batches that expect somebody."""
    for keys in flow.shards.keys:
        for batch in flow.client.zrange(keys.of("batches", "expecting"), 0, -1):
            flow.client.zadd(keys.of("batches", "expecting"), {text(batch): 1})
    flow.run(flow.commands.settle())
    flow.carry()


def test_who_joins_a_batch_that_was_cancelled_meanwhile_is_cancelled(slow: ShardedFlow) -> None:
    batch = slow.open()
    one = slow.add(Options(batch=batch))
    slow.stop(batch)
    slow.settle()
    assert slow.states() == {one: "cancelled"} | dict.fromkeys(called(slow, batch), "ready")
    slow.seal(batch)
    slow.settle()
    assert (slow.batch(batch)["state"], slow.fired(batch)) == ("cancelled", ["finally"])


def test_who_comes_when_its_batch_is_over_is_no_member_of_it(slow: ShardedFlow) -> None:
    """Its dispatcher slept for longer than anybody waits."""
    batch, late = slow.open(), slow.new_id()
    assert slow.run(batch_calls.expect(0, batch, [f"1|{late}"])) == [""]
    slow.seal(batch)
    assert slow.batch(batch)["state"] == "running", "it waits for whom it expects"
    age(slow)
    slow.settle()
    assert slow.batch(batch)["state"] == "failed", "it was promised a member that never came"
    slow.prompt = True
    Flow.enqueue(slow, [late], Options(batch=f"0|{batch}"))
    assert slow.look().sets.get(("pending", batch)) is None
    slow.perform("complete", late)
    assert slow.batch(batch)["total"] == "0"


def test_a_member_that_is_there_is_not_taken_for_lost(slow: ShardedFlow) -> None:
    batch = slow.open()
    one = slow.add(Options(batch=batch))
    slow.seal(batch)
    age(slow)
    slow.settle()
    assert "abandoned" not in slow.batch(batch)
    slow.perform("complete", one)
    slow.settle()
    assert slow.batch(batch)["state"] == "completed"


def test_who_has_come_is_expected_no_more(flow: ShardedFlow) -> None:
    """What stands in the list is looked at in its turn: it must not grow with every batch."""
    batch = flow.open()
    flow.add(Options(batch=batch))
    flow.enqueue([flow.new_id()], Options(batch=batch, depends=Depends([flow.new_id()], "cancel")))
    assert flow.look().zsets.get(("batches", "expecting")) is None
    flow.seal(batch)


def test_what_is_sent_again_is_expected_once(flow: ShardedFlow) -> None:
    batch = flow.open()
    one = flow.add(Options(batch=batch))
    flow.perform("complete", one)
    assert flow.enqueue([one], Options(batch=batch)) == {0: ("known", "")}
    flow.seal(batch)
    assert (flow.batch(batch)["state"], flow.batch(batch)["total"]) == ("completed", "1")


@pytest.mark.parametrize("sealed", [False, True])
def test_a_member_that_its_shard_refuses(flow: ShardedFlow, sealed: bool) -> None:
    """Before all of the batch was there it is missing; later, whoever adds it is told."""
    batch = flow.open()
    first = flow.add(Options(batch=batch))
    if sealed:
        flow.seal(batch)
    nobody = flow.new_id()
    said = flow.enqueue([flow.new_id()], Options(batch=batch, depends=Depends([nobody], "cancel")))
    assert said == {0: ("no_parent", nobody)}
    flow.seal(batch)
    flow.perform("complete", first)
    assert flow.batch(batch)["state"] == ("completed" if sealed else "failed")


def test_a_sleeper_brings_nothing_twice(slow: ShardedFlow) -> None:
    """What he holds was true once."""
    parent = slow.add()
    child = slow.add(behind(parent), queue="b")
    (asks,) = slow.store.run(shard_calls.outgoing(slow.commands))
    slow.carry()
    slow.perform("bury", parent)
    (died,) = slow.store.run(shard_calls.outgoing(slow.commands))
    slow.settle()
    assert slow.states()[child] == "cancelled"
    slow.revive(parent)
    slow.settle()
    assert slow.states()[child] == "blocked"
    for words in (asks, died):
        slow.bring(words)
        slow.settle()
        assert slow.states()[child] == "blocked"
    slow.perform("complete", parent)
    slow.settle()
    assert slow.states()[child] == "ready"


@pytest.mark.parametrize("first", [0, 1])
def test_two_parents_elsewhere_fail_and_are_replayed(flow: ShardedFlow, first: int) -> None:
    one, two = flow.add(), flow.add(queue="calls")
    child = flow.add(behind(one, two), queue="b")
    flow.perform("bury", one)
    flow.perform("bury", two, queue="calls")
    assert flow.states()[child] == "cancelled"
    order = [(one, "a"), (two, "calls")]
    for parent, queue in (order[first], order[1 - first]):
        flow.revive(parent, queue=queue)
    assert flow.states()[child] == "blocked"
    flow.perform("complete", one)
    flow.perform("complete", two, queue="calls")
    assert flow.states()[child] == "ready"


def test_what_one_word_brings_is_done_before_the_next(slow: ShardedFlow) -> None:
    """Its batch hears at once that a member died, and that it runs again."""
    batch = slow.open()
    one = slow.add(Options(batch=batch))
    slow.home = 0
    slow.seal(batch)
    slow.settle()
    child = slow.add(behind(batch), queue="b")
    slow.settle()
    slow.perform("bury", one)
    slow.revive(one)
    slow.settle()
    assert slow.states()[child] == "blocked"
    slow.perform("complete", one)
    slow.settle()
    assert slow.states()[child] == "ready"


def test_a_parent_that_went_before_it_was_asked_counts_as_failed(slow: ShardedFlow) -> None:
    parent = slow.add()
    child = slow.add(behind(parent), queue="b")
    slow.commands.retention = Retention(completed=(0, 10**9))
    slow.perform("complete", parent)
    slow.settle()
    assert slow.look().meta(child)["reason"] == f"{parent} gone"


def test_a_replay_is_told_before_the_end_that_was_left_in_the_outbox(flow: ShardedFlow) -> None:
    """The end of the replay is told too."""
    batch = flow.open(lenient="1")
    one = flow.add(Options(batch=batch))
    flow.seal(batch)
    flow.perform("bury", one)
    assert flow.batch(batch)["state"] == "failed"
    with bounded(0, 1):
        flow.revive(one)
    flow.perform("complete", one)
    flow.settle()
    assert flow.batch(batch)["state"] == "completed"


def test_an_inner_batch_that_was_restored_is_not_stopped_any_more(slow: ShardedFlow) -> None:
    outer = slow.open()
    failing = slow.add(Options(batch=outer))
    slow.home = 2
    inner = slow.open(outer=outer)
    members = [slow.add(Options(batch=inner)) for _ in range(4)]
    slow.seal(inner, outer)
    slow.settle()
    slow.perform("bury", failing)
    slow.carry()
    with bounded(0, 1):
        slow.carry()  # what is too much is left to the outbox
    slow.revive(failing)
    slow.carry()
    slow.carry()
    assert "cancelled" not in slow.batch(inner)
    slow.settle()
    assert {slow.states()[each] for each in members} == {"ready"}
    assert "cancelled" not in slow.batch(inner)


def test_a_step_is_put_between_two_others_in_three_shards(flow: ShardedFlow) -> None:
    chain = flow.open(kind="chain", last="")
    one = flow.add(Options(batch=chain))
    two = flow.add(behind(one, batch=chain), queue="b")
    flow.seal(chain)
    (job,) = flow.fetch(1)
    asked = behind(one, batch=chain)
    asked.between = True
    between = flow.add(asked, queue="calls")
    assert flow.look().sets["parents", two] == {between}
    flow.finish([job], "complete")
    assert flow.states()[two] == "blocked"
    flow.perform("complete", between, queue="calls")
    assert flow.states()[two] == "ready"


def test_a_chain_says_once_behind_which_step_one_goes(slow: ShardedFlow) -> None:
    first = slow.new_id()
    chain = slow.open(kind="chain", last=first)
    slow.enqueue([first], Options(batch=chain))
    last = f"2|{slow.new_id()}"
    for _ in range(2):
        assert slow.run(batch_calls.expect(0, chain, [last], behind=True)) == ["", f"1|{first}"]
    assert slow.run(batch_calls.expect(0, chain, [f"3|{slow.new_id()}"], behind=True)) == ["", last]
    age(slow)
    slow.seal(chain)
    slow.perform("complete", first)


def test_a_word_that_nobody_knows_stops_no_other(flow: ShardedFlow) -> None:
    """One of a newer version, or damaged."""
    parent = flow.add()
    flow.client.xadd(flow.shards.keys[1].of("outbox", "2"), {"m": '["of a newer version", 1]'})
    flow.client.xadd(flow.shards.keys[1].of("outbox", "2"), {"m": "{"})
    flow.client.sadd(flow.shards.keys[1].of("outboxes"), "2")
    child = flow.add(behind(parent), queue="b")
    flow.perform("complete", parent)
    assert flow.states()[child] == "ready"
    assert len(flow.store.run(flow.commands.skipped())) == 2
    flow.client.delete(flow.shards.keys[2].of("outbox", "skipped"))


def called(flow: ShardedFlow, batch: str) -> list[str]:
    """The callbacks of a batch that stand somewhere."""
    mine = {str(UUID(int=UUID(batch).int + 10**9 * (1 + at))) for at in range(len(EVENTS))}
    return sorted(mine & flow.states().keys())


@pytest.mark.parametrize("seed", range(60))
def test_failures_and_replays_do_not_chase_each_other(slow: ShardedFlow, seed: int) -> None:
    """A batch in a chain fails and is replayed, again and again, while those behind it have not heard of the last time: news that
    a member has ended, and that it is back, had others end and come back, who said the same for ever."""
    luck = Luck(seed)
    slow.home = 1
    chain = slow.open(kind="chain", last="")
    slow.home = 3
    inner = slow.open(outer=chain)
    first = slow.add(Options(batch=inner), queue="calls")
    slow.settle()
    second = slow.add(behind(inner, batch=chain))
    third = slow.add(behind(second, batch=chain), queue="calls")
    slow.settle()
    slow.seal(inner, chain)
    slow.perform("bury", first, queue="calls")
    for _ in range(luck.randint(1, 4)):
        for _ in range(luck.randint(0, 5)):
            slow.carry_some(luck)
        if slow.states()[first] == "dead":
            slow.revive(first, queue="calls")
        for _ in range(luck.randint(0, 5)):
            slow.carry_some(luck)
        if slow.states()[first] == "ready":
            slow.perform("bury", first, queue="calls")
    slow.settle(80)
    if slow.states()[first] == "dead":
        assert [slow.states()[each] for each in (second, third)] == ["cancelled", "cancelled"]
        slow.revive(first, queue="calls")
        slow.settle(80)
    for each, queue in ((first, "calls"), (second, "a"), (third, "calls")):
        slow.perform("complete", each, queue=queue)
        slow.settle(80)
    assert [slow.batch(each)["state"] for each in (inner, chain)] == ["completed", "completed"]


@pytest.mark.parametrize("seed", [1109, *range(24)])
def test_groups_over_shards_can_be_mended_whatever_crossed(slow: ShardedFlow, seed: int) -> None:
    """Members fail and are replayed while news of it is on its way; when all is replayed and completes, so do the groups. In seed
    1109 a replay and a cancellation crossed, and answered each other for ever."""
    luck, queues = Luck(seed), dict[str, str]()

    def add(asked: Options) -> str:
        queue = luck.choice(["a", "b", "calls"])
        job = slow.add(asked, queue=queue)
        queues[job] = queue
        return job

    def member(group: str, before: str) -> str:
        return add(behind(before, batch=group) if before else Options(batch=group))

    slow.home = luck.randrange(4)
    is_chain = luck.random() < 0.5
    outer = slow.open(kind="chain", last="") if is_chain else slow.open()
    groups, last = [outer], ""
    for _ in range(luck.randint(2, 4)):
        slow.settle()
        if luck.random() < 0.5:
            slow.home = luck.randrange(4)
            inner = slow.open(outer=outer) if luck.random() < 0.7 else slow.open(outer=outer, lenient="1")
            groups.append(inner)
            for _ in range(luck.randint(1, 3)):
                member(inner, last)
            last = inner if is_chain else ""
        else:
            last = member(outer, last) if is_chain else member(outer, "")[:0]
        slow.settle()
    if luck.random() < 0.5:
        add(behind(outer))
    slow.seal(*groups[::-1])
    slow.settle()

    def having(*states: str) -> list[str]:
        found = slow.states()
        return [job for job in queues if found.get(job) in states]

    for _ in range(luck.randint(5, 40)):
        what = luck.random()
        if what < 0.4 and (ready := having("ready")):
            job = luck.choice(ready)
            slow.perform(luck.choice(["bury", "bury", "complete"]), job, queue=queues[job])
        elif what < 0.8 and (dead := having("dead")):
            job = luck.choice(dead)
            slow.revive(job, queue=queues[job])
        elif luck.random() < 0.7:
            slow.carry_some(luck)
        else:
            slow.carry()
    slow.settle(100)
    for _ in range(60):
        if not (rest := having("ready", "dead")):
            break
        job = luck.choice(rest)
        if job in having("dead"):
            slow.revive(job, queue=queues[job])
        else:
            slow.perform("complete", job, queue=queues[job])
        slow.settle(100)
    assert set(having("completed")) == set(queues)
    assert {slow.batch(group)["state"] for group in groups} == {"completed"}
