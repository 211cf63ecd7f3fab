"""A job's log in the store, beside a model: bounded, in order, each line once, whatever is sent again or was dropped before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from rf_jobs.model import envelope
from rf_jobs.model.envelope import WIRE_VERSION, Envelope
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Draft, Ending, Report, Retention
from rf_jobs.words.ids import new_id

MOST, MOST_BYTES = 8, 120
RETENTION = Retention()
lines = st.lists(st.binary(min_size=1, max_size=40), max_size=12)


class LogMachine(RuleBasedStateMachine):
    """One job that is leased again and again; what each worker writes comes through, or comes twice."""

    store: SyncStore

    def __init__(self) -> None:
        super().__init__()
        self.id = str(new_id())
        self.queue = f"q{self.id}"
        self.nonce = 0
        self.written = 0
        """In this attempt."""
        self.model: list[tuple[int, bytes]] = []
        self.number = 0
        """Of the last line of all."""
        self.last: Report | None = None

    @initialize()
    def dispatch(self) -> None:
        letter = envelope.encode(Envelope(WIRE_VERSION, self.id, "x", self.queue, 1))
        commands = self.store.commands
        self.store.run(commands.enqueue([Draft(self.id, self.queue, 1, "", letter)]))
        self.lease()

    def lease(self) -> None:
        self.nonce += 1
        commands = self.store.commands
        fetched = self.store.run(commands.fetch("w" + self.id.replace("-", ""), self.nonce, 1, 60_000, [self.queue]))
        assert [job.id for job in fetched.jobs] == [self.id]
        self.token, self.written, self.last = fetched.jobs[0].token, 0, None

    @rule()
    def again(self) -> None:
        """The attempt ends; another begins."""
        ending = Ending("release", self.queue, self.id, self.token)
        self.store.run(self.store.commands.finish([ending], RETENTION))
        self.lease()

    @rule(new=lines, missed=st.integers(0, 3))
    def write(self, new: list[bytes], missed: int) -> None:
        """``missed``: the worker had to drop so many before these."""
        if not new:
            return
        if missed:  # that happens to a worker whose own box was full: what it sends fills the log
            new = (new * MOST)[:MOST]
        report = Report(self.id, self.token, "q", b"", self.written + missed + 1, tuple(new))
        self.send(report)
        if missed:
            self.model.clear()
        self.number += missed
        for line in new:
            self.number += 1
            self.model.append((self.number, line))
        self.written += missed + len(new)
        self.last = report

    @rule()
    def send_again(self) -> None:
        """The reply was lost."""
        if self.last is not None:
            self.send(self.last)

    @rule(new=lines)
    def zombie(self, new: list[bytes]) -> None:
        report = Report(self.id, "elsewhere.1", "q", b"1", 1, tuple(new))
        assert self.store.run(self.store.commands.report([report], MOST, MOST_BYTES)) == [-1]

    def send(self, report: Report) -> None:
        assert self.store.run(self.store.commands.report([report], MOST, MOST_BYTES)) == [0]

    @invariant()
    def what_is_kept_is_the_end_of_what_was_written(self) -> None:
        while len(self.model) > MOST or (sum(len(line) for _, line in self.model) > MOST_BYTES and len(self.model) > 1):
            self.model.pop(0)
        first, kept = self.store.run(self.store.commands.joblog(self.id, 0, 1000))
        assert kept == [line for _, line in self.model]
        if kept:
            assert first == self.model[0][0]
            after = self.model[len(kept) // 2][0]
            number, rest = self.store.run(self.store.commands.joblog(self.id, after, 2))
            assert (number, rest) == (after + 1, [line for at, line in self.model if after < at <= after + 2])


@pytest.fixture
def machine(redis_url: str) -> Iterator[type[LogMachine]]:
    store = SyncStore(redis_url)
    yield type("Machine", (LogMachine,), {"store": store})
    store.close()


def test_a_log_is_what_the_model_says(machine: Any) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=40, stateful_step_count=20))
