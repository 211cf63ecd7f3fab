"""Every transition, in every order, sent once or twice, by the living and by zombies, against a real server and beside a
model of a hundred lines. After each step the store must be sound, the ledger exact, and every job where the model says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
)

from rf_jobs.core.inspector import imbalance
from rf_jobs.model import envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.calls import Call
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Draft, Ending, Retention
from rf_jobs.words.states import FINAL, State
from tests.property import snapshot
from tests.property.flow import explore

QUEUES = ("a", "b")
WORKERS = ("w1", "w2")
EXAMPLES = int(os.environ.get("RF_JOBS_TEST_EXAMPLES", "60"))
MANY = (10_000, 10**9)
KEEP_ALL = Retention(MANY, MANY, MANY, MANY)
KEEP_TWO = Retention((2, 10**9), (2, 10**9), (2, 10**9), (2, 10**9))
AGAIN = {"retry": "retried", "snooze": "snoozed", "release": "released", "park": "parked"}
OVER = {
    "complete": ("completed", "completed"),
    "bury": ("dead", "dead"),
    "discard": ("cancelled", "cancelled"),
    "expire": ("expired", "expired"),
}


@dataclass
class Modelled:
    """What the model knows of one job."""

    queue: str
    priority: int
    state: str
    place: tuple[int, int] = (0, 0)
    """Order in ready: band, then number."""
    due: int = 0
    attempt: int = 0
    crashes: int = 0
    token: str = ""
    epoch: int = 0
    cancel: bool = False
    first: bool = True
    """Whether it was never leased: then its meta may not exist."""


@dataclass
class Model:
    jobs: dict[str, Modelled] = field(default_factory=dict)
    ledger: dict[str, int] = field(default_factory=dict)
    paused: set[str] = field(default_factory=set)
    tokens: list[tuple[str, str]] = field(default_factory=list)
    """(job, token) of every lease there ever was."""
    counter: int = 0
    ids: int = 0
    nonces: dict[str, int] = field(default_factory=dict)

    def count(self, queue: str, event: str, n: int = 1) -> None:
        if n:
            self.ledger[f"{queue}|{event}"] = self.ledger.get(f"{queue}|{event}", 0) + n

    def make_ready(self, job_id: str) -> None:
        job = self.jobs[job_id]
        self.counter += 1
        job.state, job.place = "ready", (3 - job.priority, self.counter)

    def standing(self, state: str, queue: str) -> list[str]:
        return [i for i, j in self.jobs.items() if j.state == state and j.queue == queue]

    def promote(self, queue: str) -> None:
        due = sorted((self.jobs[i].due, i) for i in self.standing("scheduled", queue) if self.jobs[i].due < 1000)
        for _, job_id in due:
            self.make_ready(job_id)
        self.count(queue, "promoted", len(due))


class Machine(RuleBasedStateMachine):
    url: str
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(self.url)
        self.client.flushall()
        self.store = SyncStore(self.url)
        self.commands = self.store.commands
        self.model = Model()
        self.early = 0

    def teardown(self) -> None:
        self.store.close()
        self.client.close()

    @initialize()
    def start(self) -> None:
        self.store.run(self.commands.ping())

    def both(self, call: Call[Any], twice: bool) -> Any:
        """Send a call, or send it again as after a lost reply; answers with the last reply."""
        reply = self.store.run(call)
        return self.store.run(call) if twice else reply

    # --- dispatch ------------------------------------------------------------------------------------------------

    @rule(
        queue=st.sampled_from(QUEUES),
        priorities=st.lists(st.integers(0, 3), min_size=1, max_size=4),
        delayed=st.booleans(),
        twice=st.booleans(),
    )
    def dispatch(self, queue: str, priorities: list[int], delayed: bool, twice: bool) -> None:
        drafts = []
        for priority in priorities:
            self.model.ids += 1
            job_id = str(UUID(int=self.model.ids))
            data = envelope.encode(Envelope(1, job_id, "job", queue, 0, pri=priority))
            drafts.append(Draft(job_id, queue, priority, "+100000000" if delayed else "", data))
        # A call groups by priority, in the order in which priorities first appear.
        for priority in dict.fromkeys(priorities):
            for draft in (d for d in drafts if d.priority == priority):
                self.model.jobs[draft.id] = Modelled(queue, priority, "scheduled", due=10**9)
                if not delayed:
                    self.model.make_ready(draft.id)
        self.model.count(queue, "dispatched", len(drafts))
        if delayed:
            self.model.count(queue, "scheduled", len(drafts))
        known = self.both(self.commands.enqueue(drafts), twice)
        if twice:
            assert sorted(known) == list(range(len(drafts)))
            self.model.count(queue, "deduplicated", len(drafts))
        else:
            assert known == {}

    @rule(data=st.data())
    def time_passes_for_a_scheduled_job(self, data: st.DataObject) -> None:
        waiting = [i for i, j in self.model.jobs.items() if j.state == "scheduled"]
        if waiting:
            job_id = data.draw(st.sampled_from(waiting))
            self.early += 1
            self.model.jobs[job_id].due = self.early
            self.client.zadd(f"{{rf}}:later:{self.model.jobs[job_id].queue}", {job_id: self.early})

    # --- leases --------------------------------------------------------------------------------------------------

    @rule(
        target=held,
        worker=st.sampled_from(WORKERS),
        wanted=st.integers(1, 4),
        queues=st.permutations(QUEUES),
        twice=st.booleans(),
    )
    def fetch(self, worker: str, wanted: int, queues: list[str], twice: bool) -> tuple[str, list[str]]:
        model = self.model
        nonce = model.nonces[worker] = model.nonces.get(worker, 0) + 1
        expected: list[str] = []
        for queue in queues:
            model.promote(queue)
            if queue in model.paused:
                continue
            ready = sorted(model.standing("ready", queue), key=lambda i: model.jobs[i].place)
            expected += ready[: wanted - len(expected)]
        fetched = self.both(self.commands.fetch(worker, nonce, wanted, 60_000, queues), twice)
        assert [job.id for job in fetched.jobs] == expected
        for leased in fetched.jobs:
            job = model.jobs[leased.id]
            assert leased.epoch > job.epoch, "a fencing token that does not grow"
            assert (leased.attempt, leased.crashes, leased.queue) == (job.attempt + 1, job.crashes, job.queue)
            assert leased.again is (not job.first or twice)
            job.state, job.attempt, job.token, job.epoch, job.first = (
                "running",
                leased.attempt,
                leased.token,
                leased.epoch,
                False,
            )
            model.tokens.append((leased.id, leased.token))
            model.count(job.queue, "started")
        return (f"{worker}.{nonce}", expected)

    @rule(
        lease=consumes(held),
        verb=st.sampled_from([*AGAIN, *OVER, "crash"]),
        twice=st.booleans(),
        few=st.booleans(),
        value=st.booleans(),
    )
    def finish(self, lease: tuple[str, list[str]], verb: str, twice: bool, few: bool, value: bool) -> None:
        token, ids = lease
        endings, expected = [], []
        for job_id in ids:
            job = self.model.jobs.get(job_id)
            owned = job is not None and job.state == "running" and job.token == token
            queue = job.queue if job is not None else "a"
            number = 2 if verb == "crash" else 100_000_000
            data = b'"kept"' if value and verb in ("complete", "bury", "retry") else b""
            endings.append(Ending(verb, queue, job_id, token, number, "why", data))
            expected.append((1, owned))
        before = None if any(owned for _, owned in expected) else snapshot.take(self.client).content()
        verdicts = self.both(self.commands.finish(endings, KEEP_TWO if few else KEEP_ALL), twice)
        for verdict, ending, (_, owned) in zip(verdicts, endings, expected, strict=True):
            if owned:
                self.ended(ending.id, verb)
                fate = self.verdict(ending.id, verb)
                # Sent again it says so, unless retention has meanwhile removed the job.
                assert verdict in ((max(2, fate), 0) if twice else (fate,))
            else:
                assert verdict != 1
        if before is not None and endings:
            assert snapshot.take(self.client).content() == before, "a token that is not held changed something"
        self.forget_evicted()

    def verdict(self, job_id: str, verb: str) -> int:
        """What the store has to answer for a job that has just ended so."""
        state = self.model.jobs[job_id].state
        if verb == "crash":
            return {"cancelled": 3, "dead": 4}.get(state, 1)
        return 3 if verb in AGAIN and state == "cancelled" else 1

    def ended(self, job_id: str, verb: str) -> None:
        model, job = self.model, self.model.jobs[job_id]
        if verb == "crash":
            self.crashed(job_id)
        elif verb in AGAIN and job.cancel:
            job.state = "cancelled"
            model.count(job.queue, "cancelled")
        elif verb in AGAIN:
            model.count(job.queue, AGAIN[verb])
            job.state = {"release": "ready", "park": "parked"}.get(verb, "scheduled")
            job.due = 10**9
            job.attempt -= verb != "retry"
        else:
            job.state, event = OVER[verb]
            model.count(job.queue, event)

    def crashed(self, job_id: str, most: int = 2) -> None:
        model, job = self.model, self.model.jobs[job_id]
        job.crashes += 1
        model.count(job.queue, "reclaimed")
        if job.cancel:
            job.state = "cancelled"
            model.count(job.queue, "cancelled")
        elif job.crashes >= most:
            job.state = "dead"
            model.count(job.queue, "dead")
        else:
            job.state = "ready"
            job.attempt -= 1

    @rule(data=st.data())
    def a_zombie_speaks(self, data: st.DataObject) -> None:
        stale = [
            (i, t)
            for i, t in self.model.tokens
            if not (i in self.model.jobs and self.model.jobs[i].state == "running" and self.model.jobs[i].token == t)
        ]
        if not stale:
            return
        job_id, token = data.draw(st.sampled_from(stale))
        verb = data.draw(st.sampled_from([*AGAIN, *OVER, "crash"]))
        queue = self.model.jobs[job_id].queue if job_id in self.model.jobs else "a"
        before = snapshot.take(self.client).content()
        ending = Ending(verb, queue, job_id, token, 5, "zombie", b"x")
        assert self.store.run(self.commands.finish([ending], KEEP_ALL))[0] != 1
        assert not self.store.run(self.commands.keep("checkpoint", job_id, token, b"1", "", "a"))
        assert snapshot.take(self.client).content() == before, "a zombie changed something"

    @rule(data=st.data(), twice=st.booleans())
    def a_lease_runs_out(self, data: st.DataObject, twice: bool) -> None:
        running = [i for i, j in self.model.jobs.items() if j.state == "running"]
        if not running:
            return
        lost = data.draw(st.lists(st.sampled_from(running), min_size=1, max_size=3, unique=True))
        for job_id in lost:
            self.client.zadd(f"{{rf}}:running:{self.model.jobs[job_id].queue}", {job_id: 1})
        taken = self.store.run(self.commands.reclaim(100, 2, KEEP_ALL, b'"lost"', QUEUES))
        assert {job.id for job in taken} == set(lost)
        if twice:
            assert self.store.run(self.commands.reclaim(100, 2, KEEP_ALL, b'"lost"', QUEUES)) == []
        for job in taken:
            self.crashed(job.id)
            assert job.state == self.model.jobs[job.id].state

    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        if not self.model.tokens:
            return
        job_id, token = data.draw(st.sampled_from(self.model.tokens))
        job = self.model.jobs.get(job_id)
        mine = job is not None and job.state == "running" and job.token == token
        queue = job.queue if job is not None else "a"
        beaten = self.store.run(
            self.commands.beat(token.partition(".")[0], 1000, 60_000, {"state": "x"}, [(queue, job_id, token)])
        )
        assert beaten.lost == ([] if mine else [job_id])
        worker = token.partition(".")[0]
        cancelled = {
            i for i, j in self.model.jobs.items() if j.cancel and j.state == "running" and j.token.startswith(worker)
        }
        assert cancelled <= set(beaten.stop)

    # --- operators -----------------------------------------------------------------------------------------------

    @rule(data=st.data(), twice=st.booleans())
    def cancel(self, data: st.DataObject, twice: bool) -> None:
        if not self.model.jobs:
            return
        job_id = data.draw(st.sampled_from(sorted(self.model.jobs)))
        job = self.model.jobs[job_id]
        done = self.both(self.commands.cancel(job_id, job.queue, "no", KEEP_ALL), twice)
        if job.state == "running":
            job.cancel = True
            assert done == ("running", True)
        elif State(job.state) in FINAL:
            assert done[1] is False
        else:
            job.state, job.first = "cancelled", job.first
            self.model.count(job.queue, "cancelled")
            assert done[1] is not twice

    @rule(queue=st.sampled_from(QUEUES), forget=st.booleans(), twice=st.booleans())
    def dead_letters(self, queue: str, forget: bool, twice: bool) -> None:
        ids = self.model.standing("dead", queue)
        everyone = sorted(self.model.jobs)  # those that are no dead letters of this queue must be left alone
        if not everyone:
            return
        call: Call[list[str]] = (
            self.commands.forget(queue, everyone) if forget else self.commands.revive(queue, everyone)
        )
        moved = self.both(call, twice)
        assert moved == [] if twice else sorted(moved) == sorted(ids)
        for job_id in sorted(ids):
            if forget:
                del self.model.jobs[job_id]
            else:
                job = self.model.jobs[job_id]
                job.attempt = job.crashes = 0
                job.cancel = False
                self.model.make_ready(job_id)
        self.model.count(queue, "discarded" if forget else "replayed", len(ids))

    @rule(
        queue=st.sampled_from(QUEUES), state=st.sampled_from(["ready", "scheduled", "parked"]), limit=st.integers(1, 3)
    )
    def clear(self, queue: str, state: str, limit: int) -> None:
        gone = self.store.run(self.commands.clear(queue, State(state), limit))
        there = self.model.standing(state, queue)
        assert set(gone) <= set(there)
        assert len(gone) == min(limit, len(there))
        for job_id in gone:
            del self.model.jobs[job_id]
        self.model.count(queue, "cancelled", len(gone))
        self.model.count(queue, "evicted_cancelled", len(gone))

    @rule(queue=st.sampled_from(QUEUES), bury=st.booleans())
    def parked(self, queue: str, bury: bool) -> None:
        ids = sorted(self.model.standing("parked", queue))
        if bury:
            buried = self.store.run(self.commands.bury_parked(queue, 0, 100, KEEP_ALL, b'"x"', b'"y"'))
            assert sorted(job_id for job_id, _ in buried) == ids
        elif self.model.jobs:
            moved = self.store.run(self.commands.unpark(queue, sorted(self.model.jobs)))
            assert sorted(moved) == ids
        else:
            return
        for job_id in ids:
            if bury:
                self.model.jobs[job_id].state = "dead"
            else:
                self.model.make_ready(job_id)
        self.model.count(queue, "dead" if bury else "unparked", len(ids))

    @rule(queue=st.sampled_from(QUEUES), on=st.booleans())
    def pause(self, queue: str, on: bool) -> None:
        assert self.store.run(self.commands.pause(queue, on)) is ((queue in self.model.paused) is not on)
        (self.model.paused.add if on else self.model.paused.discard)(queue)

    # --- what must hold ------------------------------------------------------------------------------------------

    def forget_evicted(self) -> None:
        """Retention has removed the oldest finished jobs: which, the store may choose; how many is exact."""
        there = snapshot.take(self.client).job_ids()
        for job_id in [i for i in self.model.jobs if i not in there]:
            job = self.model.jobs.pop(job_id)
            assert State(job.state) in FINAL, f"retention removed a job that was {job.state}"
            self.model.count(job.queue, f"evicted_{job.state}")

    @invariant()
    def the_store_is_sound(self) -> None:
        assert snapshot.faults(snapshot.take(self.client)) == []

    @invariant()
    def the_store_is_as_the_model(self) -> None:
        seen = snapshot.take(self.client)
        assert seen.ledger() == self.model.ledger
        standing = {job: state for family, state in snapshot.STANDING.items() for job in seen.members(family)}
        assert standing == {job_id: job.state for job_id, job in self.model.jobs.items()}
        for job_id, job in self.model.jobs.items():
            meta = seen.meta(job_id)
            if not job.first:
                assert int(meta.get("attempt", "0")) == job.attempt
                assert int(meta.get("crashes", "0")) == job.crashes

    @invariant()
    def no_job_is_lost_or_doubled(self) -> None:
        survey = self.store.run(self.commands.survey())
        assert {queue.name: imbalance(queue) for queue in survey.queues} == {queue.name: 0 for queue in survey.queues}


@pytest.fixture
def machine(server: EmbeddedServer) -> Iterator[type[Machine]]:
    Machine.url = server.url
    yield Machine
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.timeout(400)
def test_every_transition_in_every_order(machine: type[Machine]) -> None:
    explore(machine, EXAMPLES)
