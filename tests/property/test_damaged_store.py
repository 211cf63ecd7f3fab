"""Somebody edited the store by hand. What depends on that may be lost; nothing else may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rf_jobs.core.inspector import imbalance
from rf_jobs.store import limit_calls
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.options import Depends, Options, Unique
from tests.property.flow import Flow

WRONG = {"string": ("SET", "x"), "list": ("RPUSH", "x"), "hash": ("HSET", "x", "y"), "zset": ("ZADD", "1", "x")}
NONSENSE = ("nan", "inf", "-1", "0", "x", "1e300")


@pytest.fixture
def flow(server: EmbeddedServer) -> Iterator[Flow]:
    running = Flow(server.url)
    yield running
    running.client.flushall()
    running.close()


class Ours:
    """Jobs that have to do with each key there is, and others that have nothing to do with those."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        for name in ("broken", "sound"):
            flow.run(limit_calls.define(flow.commands, name, {"c": "1", "r": "1000", "p": "1"}))
        flow.run(limit_calls.define(flow.commands, "bucket", {"r": "1000", "p": "1", "a": "bucket"}))
        self.broken, self.sound = flow.open(), flow.open()
        self.parent = flow.add()
        self.child = flow.add(Options(depends=Depends([self.parent], "cancel")))
        self.running = flow.add(Options(links=" lbroken"))
        self.leases = flow.fetch(2)
        flow.add(Options(batch=self.broken, links=" lbroken"))
        flow.add(Options(links=" lbucket"))
        flow.add(Options(links=" f1:x"))
        flow.add(Options(unique=Unique("digest", "done", 0, "return", 0)))
        held = flow.fetch(1)
        self.others = [flow.add(Options(batch=self.sound, links=" lsound")) for _ in range(3)]
        self.others += [flow.add() for _ in range(3)]
        flow.seal(self.broken, self.sound)
        flow.finish(held, "release")

    def key(self, name: str) -> str:
        return "{rf}:" + name.format(broken=self.broken, parent=self.parent, child=self.child)

    def go_on(self) -> None:
        """Everything that has nothing to do with what was broken comes to its end."""
        flow = self.flow
        new = flow.add()
        flow.finish(self.leases, "complete")
        for _ in range(5):
            flow.drain()
        flow.settle()
        flow.run(flow.commands.beat("w", 60_000, 60_000, {}, ()))
        done = set(flow.look().members("done"))
        assert set(self.others) | {new, self.running, self.parent} <= done
        assert flow.batch(self.sound)["state"] == "completed"
        assert flow.fired(self.sound) == ["then", "finally"]
        assert [imbalance(queue) for queue in flow.store.run(flow.commands.survey()).queues] == [0, 0]


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize(
    "name",
    [
        "batch:{broken}", "pending:{broken}", "failed:{broken}", "doomed:{broken}", "dependents:{parent}", "parents:{child}",
        "inputs:{child}", "undone:{parent}", "holders:broken", "limit:broken", "held:broken", "refs:broken", "starts:broken",
        "bucket:bucket", "limit:bucket", "timers", "holds", "outbox", "batches", "batches:open", "batches:unsealed", "limits",
        "unique:digest", "fair:a", "wake:a", "extras", "watched", "live", "seq", "paused", "workers", "worker:w", "queues",
        "meta:{child}",
    ],
)  # fmt: skip
def test_a_key_of_the_wrong_type_stops_nobody_else(flow: Flow, name: str, kind: str) -> None:
    ours = Ours(flow)
    key = ours.key(name)
    command, *values = WRONG[kind]
    flow.client.delete(key)
    flow.client.execute_command(command, key, *values)
    ours.go_on()


@pytest.mark.parametrize(
    "callbacks", ["{", "5", "null", '"x"', "[1]", '[["x"]]', "[{}]", "[[null,null,null,null,null]]", '[["i","q","x","c","e"]]']
)  # fmt: skip
def test_callbacks_that_are_none_are_not_called(flow: Flow, callbacks: str) -> None:
    ours = Ours(flow)
    flow.client.hset(ours.key("batch:{broken}"), "then", callbacks)
    ours.go_on()
    assert flow.batch(ours.broken)["state"] == "completed"
    assert flow.fired(ours.broken) == ["finally"]


@pytest.mark.parametrize(
    "item", ["{", "5", "[]", "{}", '["none"]', '["over"]', '["member",null]', '["free"]', '["stop",5]', '["again",{}]']
)  # fmt: skip
def test_what_is_no_work_is_left_out(flow: Flow, item: str) -> None:
    ours = Ours(flow)
    flow.client.rpush("{rf}:outbox", item)
    ours.go_on()
    assert flow.outbox() == 0


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize("field", ["c", "r", "p", "C", "R", "P"])
@pytest.mark.parametrize("name", ["broken", "bucket"])
def test_a_limit_of_nonsense_limits_nothing_for_ever(flow: Flow, name: str, field: str, value: str) -> None:
    ours = Ours(flow)
    flow.client.hset(f"{{rf}}:limit:{name}", field, value)
    flow.client.hset("{rf}:bucket:bucket", mapping={"tokens": value, "at": value})
    flow.client.lpush("{rf}:starts:broken", value)
    flow.client.zadd("{rf}:timers", {"": 1, "/": 1, "!": 1, "none": 1})
    ours.go_on()


@pytest.mark.parametrize("links", [" l", " l/", " b", " u", " s", " f", " f0:x", " f1:", "zz", " lx/y", " k k"])
def test_links_that_lead_nowhere_stop_nobody_else(flow: Flow, links: str) -> None:
    ours = Ours(flow)
    flow.client.hset(ours.key("meta:{parent}"), "links", links)
    ours.go_on()


def test_a_batch_whose_members_were_removed_can_be_cancelled(flow: Flow) -> None:
    batch = flow.open()
    flow.add(Options(batch=batch))
    flow.seal(batch)
    flow.client.delete(f"{{rf}}:pending:{batch}")
    flow.drain()
    assert flow.batch(batch)["state"] == "running"
    assert flow.stop(batch)
    assert flow.batch(batch)["state"] == "cancelled"
    assert flow.fired(batch) == ["finally"]


def test_a_queue_that_cannot_take_whom_a_limit_lets_in_keeps_no_other_consequence(flow: Flow) -> None:
    flow.run(limit_calls.define(flow.commands, "one", {"c": "1"}))
    parent = flow.add(Options(links=" lone"))
    child = flow.add(Options(depends=Depends([parent], "cancel")))
    flow.add(Options(links=" lone"), queue="broken")
    leases = flow.fetch(1)
    assert flow.fetch(1, ["broken"]) == []
    flow.client.set("{rf}:ready:broken", "no sorted set")
    assert flow.finish(leases, "complete") == [1]
    assert flow.client.hget(f"{{rf}}:meta:{child}", "state") == b"ready"
    assert flow.client.llen("{rf}:outbox:skipped") == 1
