"""Workflows over four shards: the same machine as in ``test_workflows``, and between its steps anything may happen to what the
shards have to say to each other. Once all of it was carried, the same must be true as with one shard."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import rule

from rf_jobs.store import batch_calls
from rf_jobs.store.calls import text
from rf_jobs.store.embedded import EmbeddedServer
from tests.property.flow import KEEP_ALL, LUCK, Luck, bounded, explore
from tests.property.sharded_flow import SHARDS, ShardedFlow
from tests.property.test_workflows import Machine

EXAMPLES = int(os.environ.get("RF_JOBS_TEST_EXAMPLES", "25"))


class ShardedMachine(Machine):
    flow_type = ShardedFlow
    flow: ShardedFlow

    @rule(luck=LUCK, lenient=st.booleans())
    def open_group(self, luck: Luck, lenient: bool) -> None:
        self.flow.home = luck.randrange(SHARDS)
        super().open_group(luck, lenient)

    @rule(luck=LUCK)
    def insert(self, luck: Luck) -> None:
        # As a client does: what it adds is there for all before its job can end.
        self.flow.settle()
        self.listen()
        super().insert(luck)
        self.flow.settle()
        self.listen()

    @rule(luck=LUCK)
    def carry(self, luck: Luck) -> None:
        self.flow.carry_some(luck)
        self.listen()

    @rule(luck=LUCK)
    def a_client_dies(self, luck: Luck) -> None:
        """Its batch expects a member that nobody dispatches."""
        if self.groups:
            group = luck.choice(sorted(self.groups))
            home = self.flow.homes[group]
            member = f"{(home + 1) % SHARDS}|{self.flow.new_id()}"
            self.flow.run(batch_calls.expect(home, group, [member]))

    @rule()
    def a_quarter_of_an_hour_passes(self) -> None:
        for keys in self.flow.shards.keys:
            key = keys.of("batches", "expecting")
            for group in self.flow.client.zrange(key, 0, -1):
                self.flow.client.zadd(key, {text(group): 1})
        self.flow.run(self.flow.commands.settle())
        self.listen()

    def drain(self) -> None:
        while self.flow.asleep:
            self.flow.bring(self.flow.asleep.pop())
        self.listen()
        self.a_quarter_of_an_hour_passes()
        super().drain()


@pytest.fixture
def machine(server: EmbeddedServer) -> Iterator[type[ShardedMachine]]:
    ShardedMachine.url = server.url
    yield ShardedMachine
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.timeout(400)
def test_workflows_in_every_order(machine: type[ShardedMachine]) -> None:
    machine.keep = KEEP_ALL
    explore(machine, EXAMPLES)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("steps", "chunk"), [(1, 1), (4, 2)])
def test_what_is_too_much_for_one_script_is_done_later(machine: type[ShardedMachine], steps: int, chunk: int) -> None:
    machine.keep = KEEP_ALL
    with bounded(steps, chunk):
        explore(machine, EXAMPLES)
