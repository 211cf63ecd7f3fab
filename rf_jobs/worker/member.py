"""The supervisor's children: each process with what belongs to it, and the places that they fill."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import msgspec

from rf_jobs.store.redis import SyncStore
from rf_jobs.words.config_settings import WorkerSettings
from rf_jobs.words.timing import mono
from rf_jobs.worker.commission import NEXT_STAGE, Failure
from rf_jobs.worker.config import QueueOrder, WorkerConfig
from rf_jobs.worker.leases import QUIET, RUNNING, STUCK, LeaseTable, Pulse
from rf_jobs.worker.orders import Order, OrderPipe
from rf_jobs.worker.upkeep import Beater, worker_facts

FIRST_PAUSE_SECONDS = 0.5
PAUSE_CAP_SECONDS = 30.0
HEALTHY_AFTER_SECONDS = 10.0
AGE_SPREAD = 0.2
"""A child is replaced up to this share of its age sooner, so that not all go at once."""


def pause_after(failures: int) -> float:
    """Seconds until the next start, after so many deaths in a row: exponential, capped, spread a little."""
    if failures == 0:
        return 0.0
    return random.uniform(0.8, 1.0) * min(PAUSE_CAP_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (min(failures, 10) - 1))  # noqa: S311


class Member:
    """One child, from its start until it was reaped."""

    def __init__(
        self, place: Place, table: LeaseTable, process: subprocess.Popen[bytes], pipe: OrderPipe, number: int
    ) -> None:
        self.place = place
        self.number = number
        """No other child of this supervisor has it."""
        self.table = table
        self.process = process
        self.pipe = pipe
        self.generation = 0
        """How many rolling restarts there had been when it was started."""
        self.started = mono()
        self.ready_at = 0.0
        """When it began to fetch and its first heartbeat was taken (monotonic); 0 before."""
        self.beaten = 0.0
        self.next_beat = 0.0
        self.retiring = False
        """Whether it was ordered to end when its jobs have."""
        self.why = ""
        """Why its successor was started."""
        self.signals = 0
        """How many it was sent."""
        self.leaving = 0.0
        """Since when nothing but itself keeps it from ending (monotonic): 0 while it serves, or has jobs that may end."""
        self.guilty: set[str] = set()
        """Jobs for whose sake it was killed."""
        settings = place.config.settings
        self.old_at = mono() + (settings.max_age_seconds or 0.0) * random.uniform(1.0 - AGE_SPREAD, 1.0)  # noqa: S311
        self.beater = Beater(
            place.store, table, lease=settings.lease_seconds, grace=settings.grace_seconds,
            facts=worker_facts(place.queues, process.pid),
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Of its process."""
        return self.process.pid

    @property
    def pulse(self) -> Pulse:
        """How it said that it is doing."""
        return self.table.pulse()

    def tell(self, order: Order) -> bool:
        """Send an order; answers whether it was taken."""
        return self.pipe.send(order)

    def signal(self, count: int) -> None:
        """Send it as many signals as the supervisor got, each once: the third is SIGKILL."""
        while self.signals < count and self.process.returncode is None:
            self.signals += 1
            os.kill(self.pid, NEXT_STAGE if self.signals < 3 else signal.SIGKILL)
            self.leaving = self.leaving or mono()

    def kill(self) -> None:
        """End it now."""
        os.kill(self.pid, signal.SIGKILL)

    def last_words(self) -> Failure | None:
        """Why it could not begin, where it said so; once it has ended."""
        line, _, _ = self.pipe.last_words().partition(b"\n")
        try:
            return msgspec.json.decode(line, type=Failure)
        except msgspec.DecodeError:
            return None

    def close(self) -> None:
        """Let go of what belonged to it."""
        self.pipe.close()
        self.table.close()

    def stalled(self, now: float) -> str:
        """Why it makes no progress; '' while it does."""
        pulse, settings = self.pulse, self.place.config.settings
        if not self.ready_at:
            return "is starting"
        if pulse.state == QUIET:
            return "is quiet"
        if pulse.state not in (RUNNING, STUCK):
            return "is stopping"
        silent = now - pulse.last_progress
        if silent > 2 * settings.sleep_seconds + 5 and pulse.busy < pulse.slots:
            return f"has had no answer to a fetch for {silent:.0f} s"
        return ""

    def worn_out(self, now: float) -> str:
        """Why another should take its place; '' while none should."""
        settings, pulse = self.place.config.settings, self.pulse
        if not self.ready_at:
            return ""
        if settings.max_jobs is not None and pulse.done >= settings.max_jobs:
            return f"it has run {pulse.done} jobs (max_jobs)"
        if settings.max_memory_mb is not None:
            used = resident_mb(self.pid)
            if used > settings.max_memory_mb:
                return f"it uses {used:.0f} MB (max_memory_mb)"
        if settings.max_age_seconds is not None and now >= self.old_at:
            return f"it has run for {now - self.started:.0f} s (max_age_seconds)"
        if pulse.state == STUCK:
            return "too many of its threads are stuck"
        return ""


class Place:
    """Where one child works at a time: the ``number``-th of a set. While one takes over from another there are two; never
    more, however long the jobs of the one that leaves take."""

    def __init__(self, set_name: str, number: int, config: WorkerConfig, store: SyncStore, default_queue: str) -> None:
        self.name = f"{set_name}/{number}" if set_name else str(number)
        self.config = config
        self.store = store
        self.queues = QueueOrder(config.settings.queues, default_queue).names
        self.current: Member | None = None
        self.successor: Member | None = None
        """One that is starting, to take over from the current."""
        self.predecessor: Member | None = None
        """One that has handed over, and ends when its jobs have."""
        self.failures = 0
        """Deaths in a row, of processes that did not run well for a while."""
        self.start_at = 0.0
        """Before then (monotonic) none is started."""
        self._failed_at = 0.0
        self.trouble = ""
        """What the last death was, while it is not made good."""

    @property
    def members(self) -> list[Member]:
        """All that live here."""
        return [member for member in (self.predecessor, self.current, self.successor) if member is not None]

    @property
    def settings(self) -> WorkerSettings:
        """Of its set."""
        return self.config.settings

    def failed(self, trouble: str) -> float:
        """A process died too soon; answers with the pause that follows, in seconds."""
        self.failures += 1
        self.trouble, self._failed_at = trouble, mono()
        pause = pause_after(self.failures)
        self.start_at = mono() + pause
        return pause

    def recovered(self) -> None:
        """One ran well."""
        self.failures, self.trouble = 0, ""

    def thrives(self, member: Member, now: float) -> None:
        """It lives. That makes failures good once it has done so for a while, if they were before its time: a successor that
        cannot start is not its merit."""
        if member.ready_at > self._failed_at and now - member.ready_at > HEALTHY_AFTER_SECONDS:
            self.recovered()

    def remove(self, member: Member) -> None:
        """It has ended. A successor that was starting has the place then."""
        if member is self.predecessor:
            self.predecessor = None
        elif member is self.successor:
            self.successor = None
        else:
            self.current, self.successor = self.successor, None

    def hand_over(self) -> Member | None:
        """The successor takes over; answers with the one that is to retire."""
        self.predecessor, self.current, self.successor = self.current, self.successor, None
        return self.predecessor

    def stalled(self, now: float) -> str:
        """Why nobody makes progress here; '' while somebody does."""
        if self.current is None:
            wait = max(0.0, self.start_at - now)
            why = self.trouble or "has ended"
            return f"worker process {self.name} {why}; the next start is in {wait:.0f} s"
        why = self.current.stalled(now)
        if not why:
            return ""
        return f"worker process {self.name} {why}" + (f" ({self.trouble})" if self.trouble else "")


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where the system does not say (anything but Linux)."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0
