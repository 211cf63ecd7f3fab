"""Places, their members and their pauses; what a rolling restart does next; how a child says that it cannot begin."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import WorkerConfig
from rf_jobs.store.redis import SyncStore
from rf_jobs.words.errors import BackendError, ConfigError, WorkerError
from rf_jobs.words.timing import mono
from rf_jobs.worker import member as members
from rf_jobs.worker.commission import Commission, Failure, equipment
from rf_jobs.worker.leases import QUIET, RUNNING, STARTED, LeaseTable, Pulse
from rf_jobs.worker.member import Member, Place, pause_after
from rf_jobs.worker.orders import OrderPipe
from rf_jobs.worker.rollout import Rollout


@dataclass
class Started:
    """What stands for a process."""

    pid: int = 1
    returncode: int | None = None


@dataclass
class House:
    """Places with members that are ready, or are not."""

    config: WorkerConfig = field(default_factory=lambda: WorkerConfig(queues=["q"], max_jobs=5, sleep=1))
    ends: list[socket.socket] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def place(self, number: int = 0) -> Place:
        return Place("", number, self.config, SyncStore("redis://127.0.0.1:1/0"), "q")

    def member(self, place: Place, *, ready: bool = True, generation: int = 0) -> Member:
        ours, theirs = socket.socketpair()
        self.ends.append(theirs)
        started: Any = Started()
        one = Member(place, LeaseTable.shared(4, ("q",)), started, OrderPipe(ours), 1)
        one.generation = generation
        one.ready_at = mono() if ready else 0.0
        self.members.append(one)
        return one


@pytest.fixture
def house() -> Iterator[House]:
    one = House()
    yield one
    for end in one.ends:
        end.close()
    for each in one.members:
        each.close()


def report(member: Member, *, state: int = RUNNING, done: int = 0, at: float | None = None, busy: int = 0) -> None:
    member.table.report(Pulse("w1", 2, busy, 0, state, done, 0.0, mono() if at is None else at, 0))


@given(st.integers(1, 10_000))
def test_pauses_grow_are_capped_and_never_zero(failures: int) -> None:
    pause = pause_after(failures)
    full = min(30.0, 0.5 * 2.0 ** min(failures - 1, 20))
    assert 0.8 * full <= pause <= full
    assert pause_after(0) == 0.0


def test_ages_differ_and_none_is_over_the_limit(house: House) -> None:
    house.config = WorkerConfig(max_age=100)
    place, now = house.place(), mono()
    ends = [house.member(place).old_at - now for _ in range(30)]
    assert all(79 < end < 101 for end in ends)
    assert len({round(end, 3) for end in ends}) > 5
    old = house.member(place)
    assert old.worn_out(old.old_at - 1) == ""
    assert "max_age_seconds" in old.worn_out(old.old_at + 1)


def test_worn_out_by_jobs_and_by_memory(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.config = house.config.max_memory_mb(100)
    one = house.member(house.place())
    monkeypatch.setattr(members, "resident_mb", lambda _: 99.0)
    report(one, done=4)
    assert one.worn_out(mono()) == ""
    report(one, done=5)
    assert one.worn_out(mono()) == "it has run 5 jobs (max_jobs)"
    report(one, done=1)
    monkeypatch.setattr(members, "resident_mb", lambda _: 101.0)
    assert one.worn_out(mono()) == "it uses 101 MB (max_memory_mb)"
    one.ready_at = 0.0
    assert one.worn_out(mono()) == "", "it has not begun"


def test_progress_is_a_fetch_or_full_slots(house: House) -> None:
    place = house.place()
    place.current = one = house.member(place)
    now = mono()
    report(one)
    assert place.stalled(now) == ""
    report(one, at=now - 8)
    assert place.stalled(now) == "worker process 0 has had no answer to a fetch for 8 s"
    report(one, at=now - 8, busy=2)
    assert place.stalled(now) == "", "all its slots are busy"
    report(one, state=QUIET)
    assert place.stalled(now) == "worker process 0 is quiet"
    one.ready_at = 0.0
    assert place.stalled(now) == "worker process 0 is starting"


def test_a_place_without_anybody_says_why(house: House) -> None:
    place = house.place()
    place.failed("did not start: no such module")
    assert (
        place.stalled(place.start_at - 7) == "worker process 0 did not start: no such module; the next start is in 7 s"
    )
    place.recovered()
    assert (place.failures, place.trouble) == (0, "")


def test_failures_are_made_good_by_one_that_began_after_them(house: House) -> None:
    place = house.place()
    place.current = old = house.member(place)
    for _ in range(3):
        place.failed("did not start")
    place.thrives(old, old.ready_at + 60)
    assert place.failures == 3, "its successors cannot start, however well it runs itself"
    new = house.member(place)
    place.thrives(new, new.ready_at + 9)
    assert place.failures == 3, "too soon to say"
    place.thrives(new, new.ready_at + 11)
    assert (place.failures, place.trouble) == (0, "")


def test_who_has_a_place_when_somebody_ends(house: House) -> None:
    place = house.place()
    place.current, place.successor = old, new = house.member(place), house.member(place)
    place.remove(new)
    assert place.members == [old]
    place.successor = new
    place.remove(old)
    assert place.members == [new], "the one that was starting has it"
    place.successor = newer = house.member(place)
    assert place.hand_over() is new
    assert place.members == [new, newer]
    place.remove(new)
    assert place.members == [newer]


def test_a_rolling_restart_is_one_at_a_time_and_does_not_pile_up(house: House) -> None:
    places = [house.place(number) for number in range(3)]
    for place in places:
        place.current = house.member(place)
    asked: list[Place] = []

    def relieve(member: Member, why: str) -> None:
        asked.append(member.place)
        member.place.successor = house.member(member.place, ready=False, generation=rollout.generation)

    rollout = Rollout(places, relieve)
    rollout.step(mono())
    assert asked == []
    places[0].predecessor = house.member(places[0])  # it was recycled a moment ago, and has a long job
    rollout.begin()
    for _ in range(3):
        rollout.step(mono())
    assert asked == [places[1]], "another one only when this one is ready"
    places[1].hand_over()
    rollout.step(mono())
    places[2].hand_over()
    rollout.step(mono())
    assert asked == [places[1], places[2]], "a third process in the first place has to wait"
    places[0].predecessor = None
    rollout.step(mono())
    places[0].hand_over()
    rollout.step(mono())
    assert asked == [places[1], places[2], places[0]]
    assert not rollout.under_way


def test_a_rolling_restart_gives_up_and_begins_again(house: House) -> None:
    place = house.place()
    place.current = house.member(place)
    rollout = Rollout([place], lambda *_: None)
    rollout.failed("of no concern")
    rollout.begin()
    rollout.failed("first")
    rollout.failed("second")
    assert rollout.under_way
    rollout.failed("third")
    assert not rollout.under_way
    rollout.begin()
    rollout.failed("first")
    assert rollout.under_way, "counted anew"


@pytest.mark.parametrize("memfd", [True, False])
def test_another_process_reads_the_lease_table(memfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)  # as on macOS
    table = LeaseTable.shared(4, ("q",))
    code = (
        "import sys; from rf_jobs.worker.leases import LeaseTable;"
        "table = LeaseTable.opened(int(sys.argv[1]), 4, ('q',)); table.start(table.add('q', 'id', 7), 3.0, 1.0)"
    )
    subprocess.run([sys.executable, "-c", code, str(table.fd)], pass_fds=[table.fd], check=True, timeout=30)
    [held] = table.held()
    assert (held.queue, held.token, held.state, held.deadline) == ("q", ".7", STARTED, 3.0)
    assert held.id.rstrip("\0") == "id"
    table.close()


# --- beginning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "expected"), [("ConfigError", ConfigError), ("BackendError", BackendError), ("", WorkerError)]
)
def test_what_a_child_says_last_is_an_error_of_its_kind(kind: str, expected: type[Exception]) -> None:
    error = Failure(kind, "text").error()
    assert type(error) is expected
    assert str(error) == "text"


@pytest.mark.parametrize("name", ["nonsense", "no_such_module_x:equip", "json:no_such_name", ":", ""])
def test_equip_that_is_not_there(name: str) -> None:
    with pytest.raises(ConfigError, match=r"equip is .*'package\.module:function'"):
        equipment(name)


def begin(line: bytes) -> tuple[int, bytes]:
    """A child that is given this as its commission: exit code, and what it says."""
    ours, theirs = socket.socketpair()
    table = LeaseTable.shared(4, ("q",))
    with ours, theirs:
        ours.sendall(line)
        command = [sys.executable, "-m", "rf_jobs.worker.child_main", "0", str(theirs.fileno()), str(table.fd)]
        done = subprocess.run(
            command, pass_fds=[theirs.fileno(), table.fd], check=False, timeout=30, capture_output=True
        )
        theirs.close()
        table.close()
        return done.returncode, ours.recv(65536)


def test_a_child_of_another_protocol_says_so() -> None:
    code, said = begin(b'{"protocol": 999, "something": "new"}\n')
    assert code == 1
    assert b"the supervisor speaks protocol 999" in said
    assert b"restart it" in said


def test_a_commission_is_read_as_it_was_written() -> None:
    import msgspec

    from rf_jobs import Settings

    worker = WorkerConfig(queues={"a": 2, "b": 1}, max_age=10).settings
    written = Commission(name="mail/0", settings=Settings(), worker=worker, capacity=4, parent=1, path=["/x"])
    assert msgspec.json.decode(msgspec.json.encode(written), type=Commission) == written
