"""Schedules under every order of what schedulers and operators do, sent once or twice, by schedulers that die with work in hand or come
late with it; against a real server whose clock the test moves, and beside a model. Each tick's job is there once, and the store
knows what is next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from rf_jobs.model.envelope import Envelope, encode
from rf_jobs.model.schedule import Definition, decode, revision, timing
from rf_jobs.model.schedule import encode as encode_definition
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.schedule_calls import Due, Put, ScheduleCalls, Tick
from rf_jobs.store.shapes import Draft
from rf_jobs.testing.clock import Clock
from rf_jobs.words.config_settings import JobsSettings, Settings
from rf_jobs.words.recurrence import Misfire, step, tick_id
from rf_jobs.words.timing import now_ms

EXAMPLES = int(os.environ.get("RF_JOBS_TEST_EXAMPLES", "60"))
QUEUE = "q"
NAMES = st.sampled_from(["a", "b", "c"])
SCHEDULERS = st.sampled_from(["s1", "s2", "s3"])
SECOND = 1000


@dataclass
class Known:
    """What the model knows of one schedule."""

    definition: Definition
    next: int | None
    paused: bool = False
    fired: int = 0
    missed: int = 0


@dataclass
class Model:
    schedules: dict[str, Known] = field(default_factory=dict)
    dispatched: list[str] = field(default_factory=list)
    hands: dict[str, list[Due]] = field(default_factory=dict)
    """What each scheduler was handed and has not done yet."""


class Machine(RuleBasedStateMachine):
    server: EmbeddedServer

    @initialize()
    def begin(self) -> None:
        self.client = redis.Redis.from_url(self.server.url, decode_responses=True)
        self.client.flushall()
        self.clock = Clock(Settings(jobs=JobsSettings(redis_url=self.server.url)))
        self.clock.__enter__()
        self.clock.freeze()
        self.store = SyncStore(self.server.url)
        self.calls = ScheduleCalls(self.store.commands)
        self.model = Model()

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.catch_up()
        finally:
            self.clock.__exit__()
            self.store.close()
            self.client.close()

    # --- operators ---------------------------------------------------------------------------------------------------

    @rule(
        name=NAMES, every=st.sampled_from([2, 3, 7, 60]), misfire=st.sampled_from(Misfire), grace=st.sampled_from([0, 5]),
        jitter=st.sampled_from([0, 1]), until=st.sampled_from([0, 0, 0, 30]), twice=st.booleans(),
    )  # fmt: skip
    def put(self, name: str, every: int, misfire: Misfire, grace: int, jitter: int, until: int, twice: bool) -> None:
        definition = Definition(
            job="C", every=every * SECOND, misfire=misfire, grace=grace * SECOND, jitter=jitter * SECOND,
            until=now_ms() + until * SECOND if until else 0,
        )  # fmt: skip
        table = definition.timetable(name)
        tick = table.after(now_ms())
        due = None if tick is None else table.due(tick)
        one = Put(name, revision(definition), timing(definition), encode_definition(definition), tick, due, "q")
        known = self.model.schedules.get(name)
        wanted = 1 if known is None else 0 if revision(known.definition) == one.revision else 2
        assert self.store.run(self.calls.put("api", "", [one])) == [wanted]
        if twice:
            assert self.store.run(self.calls.put("api", "", [one])) == [0]
        if known is None:
            self.model.schedules[name] = Known(definition, tick)
        elif wanted:
            if timing(known.definition) != one.timing:
                known.next = tick
            known.definition = definition

    @rule(name=NAMES)
    def pause(self, name: str) -> None:
        known = self.model.schedules.get(name)
        assert self.store.run(self.calls.pause(name)) == (-1 if known is None else int(not known.paused))
        if known is not None:
            known.paused = True

    @rule(name=NAMES, stale=st.booleans())
    def resume(self, name: str, stale: bool) -> None:
        known = self.model.schedules.get(name)
        if known is None:
            assert self.store.run(self.calls.resume(name, "", 1, 1)) == -1
            return
        table = known.definition.timetable(name)
        tick = table.after(now_ms())
        due = None if tick is None else table.due(tick)
        said = "another" if stale else revision(known.definition)
        reply = self.store.run(self.calls.resume(name, said, tick, due))
        assert reply == (0 if not known.paused else -2 if stale else 1)
        if reply == 1:
            known.paused, known.next = False, tick

    @rule(name=NAMES)
    def drop(self, name: str) -> None:
        known = self.model.schedules.pop(name, None)
        assert self.store.run(self.calls.drop(name)) == int(known is not None)

    @rule(name=NAMES, twice=st.booleans())
    def trigger(self, name: str, twice: bool) -> None:
        job = str(tick_id(name, -len(self.model.dispatched) - 1))
        tick = Tick(name, None, "", now_ms(), None, None, 0, "", self.draft(job), "C")
        for again in range(1 + twice):
            ((code, _),) = self.store.run(self.calls.fire("", [tick]))
            known = self.model.schedules.get(name)
            assert code == ("gone" if known is None else "fired")
            if known is not None and not again:
                known.fired += 1
                self.model.dispatched.append(job)

    # --- time and schedulers -----------------------------------------------------------------------------------------

    @rule(ms=st.one_of(st.integers(1, 4000), st.sampled_from([10_000, 61_000])))
    def wait(self, ms: int) -> None:
        self.clock.advance(ms / 1000)

    @rule(who=SCHEDULERS, limit=st.sampled_from([1, 10]))
    def look(self, who: str, limit: int) -> None:
        agenda = self.store.run(self.calls.due(who, limit, {"host": "h"}))
        assert agenda.now_ms == now_ms()
        for due in agenda.schedules:
            known = self.model.schedules[due.name]
            assert not known.paused
            assert due == Due(due.name, known.next or 0, revision(known.definition))
            assert known.definition.timetable(due.name).due(due.tick) <= now_ms()
        self.model.hands.setdefault(who, []).extend(agenda.schedules)
        again = self.store.run(self.calls.due(who, 10, {}))
        assert not {due.name for due in agenda.schedules} & {due.name for due in again.schedules}, "it is out of sight"
        self.model.hands[who].extend(again.schedules)

    @rule(who=SCHEDULERS, late=st.sampled_from([0, 0, 2500, 20_000]), twice=st.booleans())
    def round(self, who: str, late: int, twice: bool) -> None:
        self.clock.advance(late / 1000)
        self.look(who, 10)
        self.work(who, twice=twice, keeps=False)

    @rule(
        who=SCHEDULERS,
        what=st.sampled_from(["pause", "change", "drop", "back", "other"]),
        wait=st.sampled_from([2500, 8000]),
    )
    def overtaken(self, who: str, what: str, wait: int) -> None:
        """Something happens between a scheduler's look and its work."""
        self.clock.advance(wait / 1000)
        self.look(who, 10)
        for name in {due.name for due in self.model.hands[who]} & set(self.model.schedules):
            if what == "pause":
                self.pause(name)
            elif what == "drop":
                self.drop(name)
            elif what == "change":
                known = self.model.schedules[name]
                definition = replace(known.definition, ver=known.definition.ver + 1)
                one = Put(name, revision(definition), timing(definition), encode_definition(definition), 1, 1, "q")
                assert self.store.run(self.calls.put("api", "", [one])) == [2]
                known.definition = definition
        if what == "other":  # it was thought dead
            self.clock.advance(1.1)
            self.round("other", late=0, twice=False)
        now = self.clock.now()
        if what == "back":  # the server's clock is set back, and then right again
            self.clock.travel_to(now - timedelta(seconds=wait / 1000 + 1))
        self.work(who, twice=False, keeps=True)
        if what == "back":
            self.clock.travel_to(now)

    @rule(who=SCHEDULERS)
    def die(self, who: str) -> None:
        self.model.hands.pop(who, None)

    @rule(who=SCHEDULERS, twice=st.booleans(), keeps=st.booleans())
    def work(self, who: str, twice: bool, keeps: bool) -> None:
        """Do what is in hand, perhaps long after it was handed out, perhaps sent again, perhaps by somebody who forgets that it
        was done."""
        hand = {due.name: due for due in self.model.hands.get(who, [])}
        if not keeps:
            self.model.hands.pop(who, None)
        ticks = [tick for due in hand.values() if (tick := self.plan(due)) is not None]
        if not ticks:
            return
        first = self.store.run(self.calls.fire(who, ticks))
        for tick, (code, _) in zip(ticks, first, strict=True):
            self.judge(tick, code)
        if twice:
            second = self.store.run(self.calls.fire(who, ticks))
            for before, after in zip(first, second, strict=True):
                assert after[0] == before[0], "sent again it says the same"

    def plan(self, due: Due) -> Tick | None:
        _, data = self.store.run(self.calls.definition(due.name))
        if not data:
            return None
        definition = decode(data)
        table = definition.timetable(due.name)
        todo = step(table, due.tick, now_ms(), Misfire(definition.misfire), definition.grace)
        job = "" if todo.run is None else str(tick_id(due.name, todo.run))
        return Tick(
            due.name, due.tick, due.revision, todo.run, todo.next, None if todo.next is None else table.due(todo.next),
            todo.missed, "", self.draft(job) if job else None, "C",
        )  # fmt: skip

    def draft(self, job: str) -> Draft:
        return Draft(job, QUEUE, 1, "", encode(Envelope(1, job, "C", QUEUE, 0)))

    def judge(self, tick: Tick, code: str) -> None:
        known = self.model.schedules.get(tick.name)
        if known is None:
            assert code == "gone"
            return
        done_before = self.client.hmget(f"{{rf}}:schedule:{tick.name}", "from")[0] == str(tick.expected)
        if known.next != tick.expected:
            assert code == "taken" or (done_before and code in ("fired", "moved"))
        elif known.paused:
            assert code == "paused"
        elif revision(known.definition) != tick.revision:
            assert code == "changed"
        elif known.definition.timetable(tick.name).due(tick.expected or 0) > now_ms():
            assert code == "early"
        else:
            assert code == ("moved" if tick.run is None else "fired")
            known.next = tick.next
            known.missed += tick.missed
            if tick.run is not None:
                known.fired += 1
                job = str(tick_id(tick.name, tick.run))
                if job not in self.model.dispatched:  # it may have been removed, and put again
                    self.model.dispatched.append(job)
            if known.definition.misfire == Misfire.ALL:
                assert (tick.run, tick.missed) == (tick.expected, 0)

    # --- what holds always -------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        scored: Any = self.client.zrange("{rf}:schedules", 0, -1, withscores=True)
        scores: dict[str, float] = dict(scored)
        assert set(scores) == set(self.model.schedules)
        for name, known in self.model.schedules.items():
            facts = self.client.hgetall(f"{{rf}}:schedule:{name}")
            assert facts["next"] == ("" if known.next is None else str(known.next))
            assert ("paused" in facts) == known.paused
            assert int(facts.get("fired", 0)) == known.fired
            assert int(facts.get("missed", 0)) == known.missed
            if known.paused or known.next is None:
                assert scores[name] == float("inf")
            else:
                due = known.definition.timetable(name).due(known.next)
                assert int(facts["due"]) == due
                assert due <= scores[name] <= max(due, now_ms() + SECOND)
        assert sorted(self.client.zrange("{rf}:ready:q", 0, -1)) == sorted(self.model.dispatched)
        ledger = self.client.hgetall("{rf}:ledger")
        assert int(ledger.get("q|dispatched", 0)) == len(self.model.dispatched)

    def catch_up(self) -> None:
        """Whatever was going on: one scheduler that lives brings all in order."""
        self.model.hands.clear()
        self.clock.advance(2)
        for _ in range(2000):
            self.look("survivor", 10)
            if not self.model.hands.get("survivor"):
                break
            self.work("survivor", twice=False, keeps=False)
        for name, known in self.model.schedules.items():
            if not known.paused and known.next is not None:
                assert known.definition.timetable(name).due(known.next) > now_ms(), name


@pytest.fixture
def machine(server: EmbeddedServer) -> Iterator[type[Machine]]:
    class Connected(Machine):
        pass

    Connected.server = server
    yield Connected
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.timeout(600)
def test_schedules_beside_a_model(machine: type[Machine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[check for check in HealthCheck if isinstance(check, HealthCheck)],
            print_blob=True,
        ),
    )


def test_a_call_sent_again_after_a_run_out_of_turn(machine: type[Machine]) -> None:
    """Its tick was fired, though the last job is another's by now."""
    state = machine()
    try:
        state.begin()
        state.put(name="a", every=2, grace=0, jitter=0, misfire=Misfire.ONCE, until=0, twice=False)
        state.overtaken(who="s1", what="change", wait=2500)
        state.look(who="s2", limit=1)
        state.work(who="s2", twice=False, keeps=True)
        state.trigger(name="a", twice=False)
        state.round(who="s2", late=0, twice=False)
        state.the_store_is_as_the_model_says()
    finally:
        state.teardown()
