"""Large workflows: they work, and no script does more than its share of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rf_jobs.core.inspector import imbalance
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.options import Depends, Options
from rf_jobs.words.states import State
from tests.property import snapshot
from tests.property.flow import Flow

MANY = 10_000
CUT = 500
SHARE = 3_000
"""Jobs that one script moves beside those that it was asked to: as many as it has steps, and a chunk."""


@pytest.fixture
def flow(server: EmbeddedServer) -> Iterator[Flow]:
    running = Flow(server.url)
    yield running
    assert running.outbox() == 0
    assert running.most <= SHARE
    assert snapshot.faults(running.look()) == []
    survey = running.store.run(running.commands.survey())
    assert {queue.name: imbalance(queue) for queue in survey.queues} == {queue.name: 0 for queue in survey.queues}
    running.client.flushall()
    running.close()


def enqueue(flow: Flow, n: int, asked: Options | None = None) -> list[str]:
    ids = [flow.new_id() for _ in range(n)]
    for at in range(0, n, CUT):
        said = flow.enqueue(ids[at : at + CUT], asked)
        assert {code for code, _ in said.values()} <= {"waits"}
    return ids


def count(flow: Flow, state: State) -> int:
    return flow.store.run(flow.commands.count(state, "a"))


def test_a_fan_in_of_ten_thousand_parents(flow: Flow) -> None:
    parents = enqueue(flow, MANY)
    child = flow.add(Options(depends=Depends(parents, "cancel")))
    while count(flow, State.READY) > 1 or count(flow, State.BLOCKED):
        flow.finish(flow.fetch(CUT), "complete", b"1")
    assert flow.client.hlen(f"{{rf}}:inputs:{child}") == MANY
    assert flow.drain() == [child]


def test_the_last_of_ten_thousand_parents_fails(flow: Flow) -> None:
    parents = enqueue(flow, MANY)
    child = flow.add(Options(depends=Depends(parents, "cancel")))
    for _ in range(MANY // CUT - 1):
        flow.finish(flow.fetch(CUT), "complete")
    last = flow.fetch(CUT)
    flow.finish(last, "bury")
    assert flow.states()[child] == "cancelled"
    flow.revive(*[job.id for job in last])
    assert flow.states()[child] == "blocked"
    assert flow.drain()[-1] == child


@pytest.mark.parametrize("verb", ["complete", "bury"])
def test_a_fan_out_to_ten_thousand_children(flow: Flow, verb: str) -> None:
    parent = flow.add()
    enqueue(flow, MANY, Options(depends=Depends([parent], "cancel")))
    assert count(flow, State.BLOCKED) == MANY
    flow.perform(verb, parent)
    assert flow.left > 0, "all of it in one script"
    flow.settle()
    assert count(flow, State.READY if verb == "complete" else State.CANCELLED) == MANY
    if verb == "bury":
        flow.revive(parent)
        flow.settle()
        assert (count(flow, State.BLOCKED), count(flow, State.CANCELLED)) == (MANY, 0)


def test_a_chain_of_two_thousand_steps(flow: Flow) -> None:
    chain = flow.open(kind="chain")
    steps: list[str] = []
    for _ in range(2_000):
        steps.append(
            flow.add(Options(batch=chain, awaited=True, depends=Depends(steps[-1:], "cancel") if steps else None))
        )
    flow.seal(chain)
    done = []
    while jobs := flow.fetch(10):
        assert len(jobs) == 1
        done += [job.id for job in jobs]
        flow.finish(jobs, "complete", b"1")
    assert done == steps
    assert flow.batch(chain)["state"] == "completed"
    assert flow.fired(chain) == ["then", "finally"]


def test_a_chain_of_two_thousand_steps_ends_with_its_first(flow: Flow) -> None:
    chain = flow.open(kind="chain")
    steps: list[str] = []
    for _ in range(2_000):
        steps.append(flow.add(Options(batch=chain, depends=Depends(steps[-1:], "cancel") if steps else None)))
    flow.seal(chain)
    flow.perform("bury", steps[0])
    flow.settle()
    assert count(flow, State.CANCELLED) == 1_999
    flow.revive(steps[0])
    flow.settle()
    assert [job.id for job in flow.fetch(10)] == steps[:1]
    assert count(flow, State.BLOCKED) == 1_999


def test_a_batch_of_twenty_thousand(flow: Flow) -> None:
    batch = flow.open()
    enqueue(flow, 2 * MANY, Options(batch=batch))
    flow.seal(batch)
    while jobs := flow.fetch(CUT):
        assert flow.fired(batch) == []
        flow.finish(jobs, "complete")
    assert flow.batch(batch)["state"] == "completed"
    assert flow.fired(batch) == ["then", "finally"]


@pytest.mark.parametrize("by", ["failure", "operator"])
def test_a_batch_of_twenty_thousand_is_cancelled(flow: Flow, by: str) -> None:
    batch = flow.open()
    ids = enqueue(flow, 2 * MANY, Options(batch=batch))
    flow.seal(batch)
    if by == "operator":
        assert flow.stop(batch)
    else:
        flow.finish(flow.fetch(1), "bury")
    flow.settle()
    assert flow.fired(batch) == (["finally"] if by == "operator" else ["catch", "finally"])
    assert count(flow, State.READY) == 0
    if by == "failure":
        flow.revive(ids[0])
        flow.settle()
        assert (count(flow, State.READY), count(flow, State.CANCELLED)) == (2 * MANY, 0)
