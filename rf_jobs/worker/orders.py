"""What a supervisor tells its children, JSON lines of which most come with a heartbeat; and how a child announces what its
siblings' deaths did. The supervisor runs no event loop and no telemetry: it settles in the store, and a living child says so on its bus."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from rf_jobs.client.manager import QueueManager
from rf_jobs.model.events import JobReclaimed
from rf_jobs.store.shapes import Beaten
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.states import State


@dataclass(frozen=True)
class Crash:
    """A job whose worker process died over it: settled in the store, not yet announced. ``token`` is the lost lease's."""

    queue: str
    id: str
    token: str


@dataclass(frozen=True)
class Order:
    """One line."""

    beaten: Beaten | None
    """None where the heartbeat failed, or there was none."""
    crashes: list[Crash] = field(default_factory=list)
    operations: list[tuple[str, float, str]] = field(default_factory=list)
    """The supervisor's own round trips to the server since the last line: operation, seconds, error."""
    unextended: int = 0
    """Extensions of leases that failed with their heartbeats, since the child was started."""
    retire: bool = False
    """Take no more jobs, and end when those that run have."""
    quiet: bool = False
    """Take no more jobs, and stay."""


class OrderPipe:
    """The supervisor's end of the pipe to a process that it started: one JSON document a line. It never blocks: of a line that the socket does not take whole the rest
    is kept and goes first, and until it is gone no other line is taken."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._end = end
        self._rest = b""

    def send(self, document: object) -> bool:
        """Answers with False where it is dropped: the process is gone, or has not read those before."""
        try:
            if not self._flushed():
                return False
            self._rest = msgspec.json.encode(document) + b"\n"
            self._flushed()
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def _flushed(self) -> bool:
        try:
            while self._rest:
                self._rest = self._rest[self._end.send(self._rest) :]
        except BlockingIOError:
            return False
        return True

    def last_words(self) -> bytes:
        """What the process has said that has ended, as far as it is there."""
        try:
            return self._end.recv(65536)
        except OSError:
            return b""

    def close(self) -> None:
        """The process sees it."""
        self._end.close()


def _fate(state: str) -> str:
    """What the crash made of it; it may have moved on since."""
    return state if state in (State.DEAD, State.CANCELLED) else State.READY


async def announce(manager: QueueManager, crashes: list[Crash], on_dead: Callable[[JobReclaimed], None]) -> None:
    """Emit what a reclaim would have; where the store can't say more by now, with what is known. ``on_dead`` hears of those
    that are buried."""
    for crash in crashes:
        worker = crash.token.partition(".")[0]
        try:
            record = await manager.inspector.job(crash.id)
        except RfJobsError:
            event = JobReclaimed(crash.id, crash.queue, "", 0, worker, State.READY, crash.token)
        else:
            event = JobReclaimed(
                crash.id, crash.queue, record.job_class, record.crashes, worker, _fate(record.state), crash.token,
                record.attempt,
            )  # fmt: skip
        manager.bus.emit(event)
        if event.state == State.DEAD:
            on_dead(event)
