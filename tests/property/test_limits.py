"""Limits, pauses and turns, with a clock that a test moves: never more than allowed, nobody held back where there is room."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rf_jobs.core.inspector import imbalance
from rf_jobs.store import limit_calls
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.options import Options
from rf_jobs.store.shapes import Leased
from rf_jobs.testing import Clock
from rf_jobs.words.states import FINAL, State
from tests.property import snapshot
from tests.property.flow import DELAYED, KEEP_ALL, LUCK, Flow, Luck, explore

QUEUES = ("a", "b")
EXAMPLES = int(os.environ.get("RF_JOBS_TEST_EXAMPLES", "40"))
PER_MS = 100_000
REFS = ("many", "each/x", "each/y", "rate", "trickle", "both")
LOOK_AGAIN = 5.0


@dataclass
class Allowed:
    """A limit as it stands."""

    concurrency: int | None = None
    rate: int | None = None
    bucket: bool = False


@dataclass
class Started:
    """When jobs started under a limit (ms), since it was last changed."""

    times: list[int] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.flow = Flow(self.url)
        self.clock = Clock(self.url)
        self.clock.__enter__()
        self.clock.freeze()
        self.links: dict[str, tuple[str, ...]] = {}
        self.queue: dict[str, str] = {}
        self.leases: list[Leased] = []
        self.limits = {
            "many": Allowed(2), "each": Allowed(1), "rate": Allowed(None, 3), "trickle": Allowed(None, 3, True),
            "both": Allowed(1, 2),
        }  # fmt: skip
        self.started: dict[str, Started] = {}
        self.paused: set[str] = set()
        self.held_class = False
        for name in self.limits:
            self.define(name)

    @initialize(
        seed=st.integers(0, 10**6),
        often=st.sampled_from([0.0, 0.5]),
        refs=st.lists(st.sampled_from(REFS), min_size=1, max_size=2),
    )
    def start(self, seed: int, often: float, refs: list[str]) -> None:
        self.flow.dice = random.Random(seed)
        self.flow.often = often
        self.refs = refs
        """Few, so that jobs meet."""

    def now(self) -> int:
        return self.flow.store.run(self.flow.commands.time())

    def define(self, name: str) -> None:
        allowed = self.limits[name]
        fields = {} if allowed.concurrency is None else {"C": str(allowed.concurrency)}
        if allowed.rate is not None:
            fields |= {"R": str(allowed.rate), "P": str(PER_MS), "A": "bucket" if allowed.bucket else "sliding"}
        self.flow.run(limit_calls.define(self.flow.commands, name, fields))

    # --- what happens --------------------------------------------------------------------------------------------

    refs: list[str]

    @rule(luck=LUCK, queue=st.sampled_from(QUEUES), n=st.integers(1, 3), delayed=st.sampled_from([False, False, True]))
    def dispatch(self, luck: Luck, queue: str, n: int, delayed: bool) -> None:
        links = tuple(sorted({luck.choice(self.refs), luck.choice(self.refs)}))
        ids = [self.flow.new_id() for _ in range(n)]
        self.flow.enqueue(ids, Options(links="".join(f" l{ref}" for ref in links)), queue, DELAYED if delayed else "")
        for job_id in ids:
            self.links[job_id], self.queue[job_id] = links, queue

    @rule(name=st.sampled_from(["many", "each", "rate", "trickle", "both"]), n=st.integers(1, 4))
    def change(self, name: str, n: int) -> None:
        allowed = self.limits[name]
        if allowed.concurrency is not None:
            allowed.concurrency = n
        else:
            allowed.rate = n
        self.define(name)
        for ref in REFS:
            if ref.partition("/")[0] == name:
                self.started.pop(ref, None)  # what may start within a period depends on when it was changed

    @rule(wanted=st.integers(0, 4), queues=st.permutations(QUEUES))
    def fetch(self, wanted: int, queues: list[str]) -> None:
        jobs = self.flow.fetch(wanted, queues)
        assert not (self.held_class and jobs), "a paused class runs"
        assert not {job.queue for job in jobs} & self.paused
        self.leases += jobs
        now = self.now()
        for ref in {ref for job in jobs for ref in self.links[job.id]}:
            fresh = sum(ref in self.links[job.id] for job in jobs)
            times = self.started.setdefault(ref, Started()).times
            times += [now] * fresh
            self.judge(ref, times, now)

    def judge(self, ref: str, times: list[int], now: int) -> None:
        """Of a limit under which something has just started."""
        allowed = self.limits[ref.partition("/")[0]]
        if allowed.concurrency is not None:
            running = sum(ref in self.links[job.id] for job in self.leases)
            assert running <= allowed.concurrency, f"{running} jobs run under {ref}"
        if allowed.rate is None:
            return
        if not allowed.bucket:
            assert sum(at > now - PER_MS for at in times) <= allowed.rate, f"{times} under {ref}"
            return
        for since in set(times):
            most = allowed.rate + (now - since) * allowed.rate / PER_MS
            assert sum(at >= since for at in times) <= most + 0.001, f"{times} under {ref}"

    @rule(luck=LUCK, verb=st.sampled_from(["complete", "complete", "bury", "retry", "release", "snooze", "crash"]))
    def finish(self, luck: Luck, verb: str) -> None:
        if self.leases:
            jobs = luck.sample(self.leases, min(len(self.leases), luck.randint(1, 3)))
            self.flow.finish(jobs, verb)
            self.leases = [job for job in self.leases if job not in jobs]

    @rule(luck=LUCK)
    def a_worker_dies(self, luck: Luck) -> None:
        if self.leases:
            job = luck.choice(self.leases)
            self.flow.client.zadd(f"{{rf}}:running:{job.queue}", {job.id: 1})
            self.flow.run(self.flow.commands.reclaim(100, 3, KEEP_ALL, b'{"attempt":1}', QUEUES))
            self.leases.remove(job)

    @rule(luck=LUCK, what=st.sampled_from(["cancel", "priority", "due", "later"]))
    def steer(self, luck: Luck, what: str) -> None:
        if not self.links:
            return
        ready = sorted(self.flow.look().members("ready")) if what in ("cancel", "later") else []
        job_id = luck.choice(ready or sorted(self.links))
        commands, queue = self.flow.commands, self.queue[job_id]
        if what == "cancel":
            self.flow.run(commands.cancel(job_id, queue, "no", KEEP_ALL))
        elif what == "priority":
            self.flow.run(commands.move(job_id, queue, what, luck.choice(["0", "1", "3"])))
        else:
            self.flow.run(commands.move(job_id, queue, "due", "" if what == "due" else DELAYED))

    @rule(queue=st.sampled_from(QUEUES), state=st.sampled_from([State.READY, State.BLOCKED, State.SCHEDULED]))
    def clear(self, queue: str, state: State) -> None:
        self.flow.run(self.flow.commands.clear(queue, state, 2))

    @rule(queue=st.sampled_from(QUEUES))
    def revive(self, queue: str) -> None:
        self.flow.revive(*self.flow.look().order("dead", queue), queue=queue)

    @rule(queue=st.sampled_from(QUEUES), on=st.booleans())
    def pause(self, queue: str, on: bool) -> None:
        self.flow.run(self.flow.commands.pause(queue, on))
        (self.paused.add if on else self.paused.discard)(queue)

    @rule(ms=st.sampled_from([0, None, None, 20_000, 50_000]))
    def hold(self, ms: int | None) -> None:
        self.flow.run(limit_calls.hold(self.flow.commands, "class:job", ms))
        self.held_class = ms is not None
        self.hold_ends = None if not ms else self.now() + ms

    @rule(seconds=st.sampled_from([0.001, 1.0, 7.0, 30.0, 99.999, 100.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.held_class and self.hold_ends is not None and self.hold_ends <= self.now():
            self.held_class = False

    hold_ends: int | None = None

    @rule()
    def patience_is_rewarded(self) -> None:
        """A moment later a look, and nobody is held back where there is room that nobody else has a claim to."""
        self.time_passes(LOOK_AGAIN)
        self.flow.fetch(0, QUEUES)
        self.flow.settle()
        seen = self.flow.look()
        ready = seen.members("ready")
        for (family, ref), held in seen.zsets.items():
            if family != "held":
                continue
            if ref.startswith("!"):
                assert self.held_class, f"{sorted(held)} are held by {ref}, which has ended"
                continue
            allowed = self.limits[ref.partition("/")[0]]
            claims = sum(ref in self.links[job_id] for job_id in ready)
            running = sum(ref in self.links[job.id] for job in self.leases)
            recent = [at for at in self.started.get(ref, Started()).times if at > self.now() - PER_MS]
            full = allowed.concurrency is not None and running + claims >= allowed.concurrency
            spent = allowed.rate is not None and (
                ref not in self.started or allowed.bucket or len(recent) + claims >= allowed.rate
            )
            assert full or spent, f"{sorted(held)} are held by {ref}, and there is room"

    # --- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_sound(self) -> None:
        seen = self.flow.look()
        assert snapshot.faults(seen) == []
        survey = self.flow.store.run(self.flow.commands.survey())
        assert {queue.name: imbalance(queue) for queue in survey.queues} == {queue.name: 0 for queue in survey.queues}

    @invariant()
    def limits_know_their_jobs(self) -> None:
        seen = self.flow.look()
        running, blocked = seen.members("running"), seen.members("blocked")
        assert set(running) == {job.id for job in self.leases}
        holders = {(ref, job_id) for (family, ref), ids in seen.sets.items() if family == "holders" for job_id in ids}
        assert holders == {
            (ref, job_id)
            for job_id in running
            for ref in self.links[job_id]
            if self.limits[ref.partition("/")[0]].concurrency is not None
        }
        held = {job_id: ref for (family, ref), ids in seen.zsets.items() if family == "held" for job_id in ids}
        assert held == {job_id: seen.meta(job_id)["held"] for job_id in blocked}

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            self.clock.__exit__()
            self.flow.close()

    def drain(self) -> None:
        """Whatever was held back runs in the end."""
        flow = self.flow
        flow.often = 0.0
        self.hold(None)
        for queue in QUEUES:
            self.pause(queue, False)
        flow.finish(self.leases, "complete")
        self.leases = []
        for _ in range(400):
            for queue in QUEUES:
                for job_id in flow.look().order("later", queue):
                    flow.client.zadd(f"{{rf}}:later:{queue}", {job_id: 1})
            self.fetch(3, list(QUEUES))
            self.finish_all()
            if all(State(state) in FINAL for state in flow.states().values()):
                return
            self.clock.advance(50)
        raise AssertionError(
            f"these never ran: {[each for each in flow.states().items() if State(each[1]) not in FINAL]}"
        )

    def finish_all(self) -> None:
        self.flow.finish(self.leases, "complete")
        self.leases = []
        self.flow.settle()


@pytest.fixture
def machine(server: EmbeddedServer) -> Iterator[type[Machine]]:
    Machine.url = server.url
    yield Machine
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.timeout(400)
def test_limits_in_every_order(machine: type[Machine]) -> None:
    explore(machine, EXAMPLES)


# --- turns ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=EXAMPLES)
@given(
    weights=st.dictionaries(st.sampled_from("pqrs"), st.integers(1, 4), min_size=1),
    backlog=st.lists(st.sampled_from("pqrs"), min_size=20, max_size=60),
    at_once=st.integers(1, 5),
)
def test_keys_take_turns_by_their_weight(
    server: EmbeddedServer, weights: dict[str, int], backlog: list[str], at_once: int
) -> None:
    """However the jobs of keys came, as long as two of them have any left none is ahead by more than a turn."""
    flow = Flow(server.url)
    try:
        key_of: dict[str, str] = {}
        for key in (key for key in backlog if key in weights):
            key_of[flow.add(Options(links=f" f{weights[key]}:{key}"))] = key
        left = {key: list(key_of.values()).count(key) for key in weights}
        done = dict.fromkeys(weights, 0)
        while jobs := flow.fetch(at_once):
            for job in jobs:
                key = key_of[job.id]
                done[key] += 1
                left[key] -= 1
                busy = sorted(done[each] / weights[each] for each in weights if left[each])
                assert all(
                    later - earlier <= 1 + 1 / min(weights.values())
                    for earlier, later in pairwise(busy[:: max(1, len(busy) - 1)])
                )
            flow.finish(jobs, "complete")
        assert not any(left.values())
    finally:
        flow.client.flushall()
        flow.close()
