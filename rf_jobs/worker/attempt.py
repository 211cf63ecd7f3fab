"""One attempt at one job, while it is in this process; and several that run together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.jobclass import JobClass
from rf_jobs.store.shapes import Leased
from rf_jobs.words.options import Many
from rf_jobs.words.timing import mono

NOWHERE = -1
"""The place of an attempt that has no lease any more."""


class Attempt:
    """What the runtime knows of a leased job: its lease, and while it runs its context, its task and why it must stop."""

    __slots__ = (
        "began", "crowd", "ctx", "deadline", "entry", "fetched", "job", "leased", "letter", "many", "now_ms", "overran",
        "place", "slot", "stop", "task", "timeout", "told", "wait",
    )  # fmt: skip

    def __init__(self, leased: Leased, place: int, fetched: float, server_ms: int) -> None:
        self.leased = leased
        self.place = place
        """Its record in the lease table."""
        self.fetched = fetched
        """When the fetch was answered (monotonic seconds)."""
        self.now_ms = server_ms
        """What the server's clock said then."""
        self.began = fetched
        self.wait = 0.0
        """Seconds from ready to started, by the server's clock up to the fetch and ours from there; once it began."""
        self.deadline = 0.0
        self.timeout = 0.0
        self.ctx: JobContext | None = None
        self.letter: Envelope | None = None
        self.entry: JobClass | None = None
        self.job: Any = None
        self.slot: asyncio.Task[None] | None = None
        """The task that took it from the buffer."""
        self.task: asyncio.Task[None] | None = None
        """The same, while the handler runs in it and may be cancelled."""
        self.stop = ""
        """Why it must stop: timeout, cancelled, lost or shutdown; '' while it need not."""
        self.told = 0.0
        """When it was (monotonic seconds)."""
        self.overran = False
        self.many: Many | None = None
        """How it is to wait for others of its class, where it is to run together with them."""
        self.crowd: Crowd | None = None
        """Those with whom it waits, or runs."""

    def begin(self) -> None:
        """Its turn has come: it is about to run, or to be handed back."""
        self.began = began = mono()
        self.wait = max(0.0, (self.now_ms - self.leased.ready_ms) / 1000) + began - self.fetched

    @property
    def in_thread(self) -> bool:
        """Whether a thread runs it, which can be asked to stop and cannot be made to."""
        return self.entry is not None and not self.entry.is_async and self.entry.options.executor == "thread"

    def interrupt(self, why: str) -> None:
        """Make it stop: tell the context, and cancel the handler. A thread is left alone until ``give_up``."""
        if self.stop:
            return
        self.stop, self.told = why, mono()
        if self.ctx is not None:
            self.ctx.request_stop()
        if self.task is not None and (why == "shutdown" or not self.in_thread):
            self.task.cancel(why)

    def give_up(self) -> None:
        """It did not stop when told to. A thread is left to itself, its slot goes on; a coroutine is cancelled again."""
        if self.task is not None:
            self.task.cancel("overran")


class Crowd(Attempt):
    """The run of several attempts at jobs of one class: to a slot and to the clock it is one attempt."""

    __slots__ = ("members", "ripe_since", "scrub", "timer")

    def __init__(self, first: Attempt) -> None:
        super().__init__(first.leased, first.place, first.fetched, first.now_ms)
        self.entry = first.entry
        self.members = [first]
        self.ripe_since = 0.0
        """Since when it waits for a slot (monotonic seconds)."""
        self.timer: asyncio.TimerHandle | None = None
        self.scrub: Callable[[str], str] | None = None
        """Takes what is sealed of any of them out of a text; where one error is the end of all."""
        first.crowd = self

    def join(self, attempt: Attempt) -> None:
        """One more."""
        self.members.append(attempt)
        attempt.crowd = self

    def interrupt(self, why: str) -> None:
        """Make all of it stop."""
        if not self.stop:
            for member in self.members:
                member.interrupt(why)
            super().interrupt(why)

    def look(self) -> None:
        """One of its members was told to stop: it goes on as long as another is wanted."""
        if all(member.stop for member in self.members):
            self.interrupt(self.members[0].stop)

    def extend(self) -> None:
        """One of its members was given more time: all have it."""
        self.deadline = max(member.deadline for member in self.members)
        for member in self.members:
            member.deadline = self.deadline
