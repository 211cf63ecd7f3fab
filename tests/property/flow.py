"""A store for tests of workflows: calls sent once or twice, what followed from them kept, the outbox left or done."""

from __future__ import annotations

import os
import random
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import UUID

import msgspec
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from rf_jobs.model import envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.store import batch_calls, options, scripts
from rf_jobs.store.batch_calls import NewBatch
from rf_jobs.store.calls import Call, Effect
from rf_jobs.store.keys import Shards
from rf_jobs.store.options import Options
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Draft, Ending, Leased, Retention
from tests.property import snapshot
from tests.property.snapshot import Snapshot

T = TypeVar("T")
PHASES = tuple(Phase) if os.environ.get("RF_JOBS_TEST_SHRINK") != "no" else (Phase.explicit, Phase.generate)
"""Whether it is enough to know that there is a failure."""
MANY = (100_000, 10**9)
KEEP_ALL = Retention(MANY, MANY, MANY, MANY)
KEEP_NONE = Retention((0, 10**9), (0, 10**9), (0, 10**9), (0, 10**9))
BOUNDS = "local STEPS, CHUNK = 2000, 500"
DELAYED = "+100000000"
EVENTS = ("then", "catch", "finally")


def explore(machine: type[RuleBasedStateMachine], examples: int, **options: Any) -> None:
    """Try so many runs of a machine."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples, stateful_step_count=40, deadline=None, phases=PHASES, print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], **options,
        ),
    )  # fmt: skip


@contextmanager
def bounded(steps: int, chunk: int) -> Generator[None]:
    """All scripts that this process sends meanwhile do so little at once, and leave the rest to the outbox."""
    read = scripts._read

    def other(path: str) -> str:
        text = read(path)
        if path != "lib/links.lua":
            return text
        assert BOUNDS in text
        return text.replace(BOUNDS, f"local STEPS, CHUNK = {steps}, {chunk}")

    scripts._read = other
    scripts.load.cache_clear()
    try:
        yield
    finally:
        scripts._read = read
        scripts.load.cache_clear()


class Luck(random.Random):
    """For choices among what a store holds. What hypothesis draws may not depend on that: no two runs end in the same
    millisecond."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._seed = seed

    def __repr__(self) -> str:
        return f"Luck({self._seed})"


LUCK = st.integers(0, 2**32).map(Luck)


class Flow:
    """Starts with an empty server; ``close`` ends it."""

    shards = Shards()

    def __init__(self, url: str, keep: Retention = KEEP_ALL) -> None:
        self.client = redis.Redis.from_url(url)
        self.client.flushall()
        self.store = SyncStore(url, self.shards)
        self.commands = self.store.commands
        self.commands.retention = keep
        self.effects: list[Effect] = []
        """All that was ever announced, first replies and second ones."""
        self.most = 0
        """The most that ever followed from one call."""
        self.left = 0
        """What the last call that moved jobs said of the outbox."""
        self.dice = random.Random(0)
        self.often = 0.0
        """How likely a call is sent twice."""
        self.numbers = 0
        self._nonces = 0
        self.store.run(self.commands.ping())

    def close(self) -> None:
        self.store.close()
        self.client.close()

    def new_id(self) -> str:
        self.numbers += 1
        return str(UUID(int=self.numbers))

    def run(self, call: Call[T]) -> T:
        """The first reply; maybe the call is sent again, as after a lost reply."""
        return self._maybe_twice(call)[0]

    def _maybe_twice(self, call: Call[T]) -> tuple[T, T]:
        """The first reply, and the last."""
        first = self._once(call)
        return first, self._once(call) if self.dice.random() < self.often else first

    def _once(self, call: Call[T]) -> T:
        if not call.moves_jobs:
            return self.store.run(call)
        reply, effects, left = self.store.run(call.with_effects())
        self.effects += effects
        self.most = max(self.most, len(effects))
        self.left = left.here
        return reply

    def settle(self, most: int = 500) -> None:
        """Do all that is in the outbox."""
        for _ in range(most):
            self.run(self.commands.settle())
            if not self.outbox():
                return
        raise AssertionError(f"the outbox never ends: {self.client.lrange('{rf}:outbox', 0, 5)!r}")

    def outbox(self) -> int:
        """How much is still to be done, or carried."""
        return self.store.run(self.commands.unsettled())

    def key(self, family: str, queue: str) -> str:
        """A queue's key."""
        return self.commands.in_queue(queue)[0].of(family, queue)

    def look(self) -> Snapshot:
        return snapshot.take(self.client)

    # --- what a client does --------------------------------------------------------------------------------------

    def enqueue(
        self, ids: Sequence[str], asked: Options | None = None, queue: str = "a", when: str = ""
    ) -> dict[int, tuple[str, str]]:
        asked = asked or Options()
        asked.job_class = asked.job_class or "job"
        data = options.encode(asked)
        drafts = [
            Draft(job_id, queue, 1, when, envelope.encode(Envelope(1, job_id, "job", queue, 0, pri=1)), data)
            for job_id in ids
        ]
        return self.run(self.commands.enqueue(drafts))

    def add(self, asked: Options | None = None, queue: str = "a", when: str = "") -> str:
        """One job that is admitted; its id."""
        job_id = self.new_id()
        said = self.enqueue([job_id], asked, queue, when)
        assert all(code in ("waits", "delayed") for code, _ in said.values()), said
        return job_id

    def open(self, *, outer: str = "", **fields: str) -> str:
        batch = self.new_id()
        assert self.run(batch_calls.open_batches([self.new_batch(batch, outer, **fields)])) == ""
        return batch

    def new_batch(self, batch: str, outer: str = "", **fields: str) -> NewBatch:
        callbacks = {event: self.callback(batch, event) for event in EVENTS}
        return NewBatch(batch, outer, {"kind": "batch", "keep": "100000000", **callbacks, **fields})

    def callback(self, batch: str, event: str) -> bytes:
        number = UUID(batch).int + 10**9 * (1 + EVENTS.index(event))
        job_id = str(UUID(int=number))
        data = envelope.encode(Envelope(1, job_id, event, "calls", 0, pri=1))
        return msgspec.json.encode([(job_id, "calls", "1", event, data.decode())])

    def fired(self, batch: str) -> list[str]:
        """The callbacks that were dispatched for a batch, in order."""
        events = {str(UUID(int=UUID(batch).int + 10**9 * (1 + at))): event for at, event in enumerate(EVENTS)}
        return [events[e.id] for e in self.effects if e.event == "dispatched" and e.id in events]

    def seal(self, *batches: str) -> None:
        self.run(batch_calls.seal(self.commands, [NewBatch(each, "", {}) for each in batches]))

    def stop(self, batch: str) -> bool:
        return self.run(batch_calls.stop(self.commands, batch, "stopped"))

    def batch(self, batch: str) -> dict[str, str]:
        return self.store.run(batch_calls.fields(self.commands, batch))

    # --- what a worker does --------------------------------------------------------------------------------------

    def fetch(self, wanted: int, queues: Sequence[str] = ("a",)) -> list[Leased]:
        self._nonces += 1
        call = self.commands.fetch("w", self._nonces, wanted, 60_000, queues)
        fetched = self._once(call)
        if self.dice.random() < self.often:
            fetched = self._once(call)  # the worker knows of this reply alone: what the first freed, this one may bring
        return fetched.jobs

    def finish(self, jobs: Sequence[Leased], verb: str, result: bytes = b"") -> list[int]:
        number = 60_000 if result else 100_000_000
        return self.run(
            self.commands.finish(
                [Ending(verb, job.queue, job.id, job.token, number, "why", result) for job in jobs],
                self.commands.retention,
            )
        )

    def perform(self, verb: str, *ids: str, queue: str = "a") -> None:
        """Fetch until these have come, and end them; what else comes is handed back."""
        wanted = set(ids)
        jobs = self.fetch(1000, (queue,))
        found = [job for job in jobs if job.id in wanted]
        assert {job.id for job in found} == wanted, f"{wanted} were not to be had, but {[job.id for job in jobs]}"
        self.finish([job for job in jobs if job.id not in wanted], "release")
        self.finish(found, verb)

    def drain(self, queues: Sequence[str] = ("a", "calls"), verb: str = "complete") -> list[str]:
        """Complete whatever comes until nothing does; answers with the ids in their order."""
        done: list[str] = []
        while jobs := self.fetch(500, queues):
            done += [job.id for job in jobs]
            self.finish(jobs, verb)
            self.settle()
        return done

    def states(self) -> dict[str, str]:
        seen = self.look()
        return {job: state for family, state in snapshot.STANDING.items() for job in seen.members(family)}

    def revive(self, *ids: str, queue: str = "a") -> list[str]:
        return self.run(self.commands.revive(queue, ids))


def gone(reply: Any) -> bool:
    """Whether a lookup found nothing."""
    return reply is None or reply == []
