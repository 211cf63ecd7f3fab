"""The lease table: which jobs this worker holds, in a buffer that a supervisor process can read.

The worker alone writes. The reader may see the table of a process that is frozen, or dead: so each record's state byte
is written last when a record is filled, and first when it is freed. A few bytes per job instead of a message, so that
keeping it costs about a microsecond.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from dataclasses import dataclass
from typing import Self

FREE, BUFFERED, STARTED, ENDED = 0, 1, 2, 3
_RECORD = struct.Struct("<BxHddQ36s")  # state, queue, deadline, start (both monotonic s), nonce, id
_RECORD_SIZE = 64
_HEADER = struct.Struct("<32sIIIIQddI")  # worker, slots, busy, buffered, state, done, busy seconds, last progress, port
_HEADER_SIZE = 128
_DEADLINE = struct.Struct("<d")
_TIMES = struct.Struct("<dd")  # deadline, start
_DEADLINE_AT = 4
STARTING, RUNNING, STOPPING, STUCK, QUIET = 0, 1, 2, 3, 4
STATE_NAMES = ("starting", "running", "stopping", "stuck", "quiet")


@dataclass(frozen=True, slots=True)
class Held:
    """One lease, as a reader sees it."""

    queue: str
    id: str
    token: str
    state: int
    """BUFFERED, STARTED or ENDED: over, but the server does not know yet."""
    deadline: float
    """Monotonic seconds; 0 while buffered."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the worker is doing, as a reader sees it. ``last_progress`` is the monotonic time of its last good fetch."""

    worker: str
    slots: int
    busy: int
    buffered: int
    state: int
    done: int
    busy_seconds: float
    last_progress: float
    port: int


class LeaseTable:
    """Leases in ``capacity`` records. ``queues`` is the list that indexes refer to, the same for writer and reader.

    Made by the class itself it is of this process alone. ``shared`` makes one that another process opens (``opened``) by its
    file descriptor, which that process has to inherit; ``close`` gives up this process's hold on such a one.
    """

    def __init__(self, capacity: int, queues: tuple[str, ...], *, fd: int = -1) -> None:
        self.queues = queues
        self._index = {name: at for at, name in enumerate(queues)}
        self.capacity = capacity
        size = _HEADER_SIZE + capacity * _RECORD_SIZE
        self.fd = fd
        """Of the memory, where it is shared; else -1."""
        self._buffer: mmap.mmap | bytearray = bytearray(size) if fd < 0 else mmap.mmap(fd, size)
        self._free = list(range(_HEADER_SIZE + (capacity - 1) * _RECORD_SIZE, _HEADER_SIZE - 1, -_RECORD_SIZE))

    @classmethod
    def shared(cls, capacity: int, queues: tuple[str, ...]) -> Self:
        """A new one in memory that a started process can inherit."""
        fd = _memory(_HEADER_SIZE + capacity * _RECORD_SIZE)
        return cls(capacity, queues, fd=fd)

    @classmethod
    def opened(cls, fd: int, capacity: int, queues: tuple[str, ...]) -> Self:
        """One that another process has made."""
        return cls(capacity, queues, fd=fd)

    def close(self) -> None:
        """Give the shared memory up; the table is of no use afterwards."""
        if isinstance(self._buffer, mmap.mmap):
            self._buffer.close()
            os.close(self.fd)

    @property
    def room(self) -> int:
        """How many more leases it can hold; for the writer."""
        return len(self._free)

    def add(self, queue: str, job_id: str, nonce: int) -> int:
        """Write down a lease; answers with its place."""
        place = self._free.pop()
        _RECORD.pack_into(self._buffer, place, FREE, self._index[queue], 0.0, 0.0, nonce, job_id.encode())
        self._buffer[place] = BUFFERED
        return place

    def start(self, place: int, deadline: float, began: float) -> None:
        """The job runs since ``began``, until ``deadline`` (monotonic seconds)."""
        _TIMES.pack_into(self._buffer, place + _DEADLINE_AT, deadline, began)
        self._buffer[place] = STARTED

    def extend(self, place: int, deadline: float) -> None:
        """The deadline has moved."""
        _DEADLINE.pack_into(self._buffer, place + _DEADLINE_AT, deadline)

    def end(self, place: int) -> None:
        """The attempt is over; the lease is held until the server has its outcome."""
        self._buffer[place] = ENDED

    def remove(self, place: int) -> None:
        """The lease is over."""
        self._buffer[place] = FREE
        self._free.append(place)

    def held(self) -> list[Held]:
        """All leases. May be called from another thread or process than the writer's."""
        worker = self.pulse().worker
        data = bytes(self._buffer)
        found = []
        for place in range(_HEADER_SIZE, len(data), _RECORD_SIZE):
            if data[place] != FREE:
                state, queue, deadline, _, nonce, job_id = _RECORD.unpack_from(data, place)
                found.append(Held(self.queues[queue], job_id.decode(), f"{worker}.{nonce}", state, deadline))
        return found

    def oldest(self) -> dict[str, float]:
        """By queue: since when the job runs that has run the longest (monotonic seconds). May be called as ``held`` may."""
        data = bytes(self._buffer)
        states = data[_HEADER_SIZE::_RECORD_SIZE]
        found: dict[str, float] = {}
        at = states.find(STARTED)
        while at >= 0:
            _, queue, _, began, _, _ = _RECORD.unpack_from(data, _HEADER_SIZE + at * _RECORD_SIZE)
            name = self.queues[queue]
            found[name] = min(found.get(name, began), began)
            at = states.find(STARTED, at + 1)
        return found

    def holds_any(self) -> bool:
        """Whether there is any lease, by what the worker last reported; cheaper than ``held``."""
        pulse = self.pulse()
        return pulse.busy + pulse.buffered > 0

    def report(self, pulse: Pulse) -> None:
        """Say how the worker is doing."""
        p = pulse
        _HEADER.pack_into(
            self._buffer,
            0,
            p.worker.encode(),
            p.slots,
            p.busy,
            p.buffered,
            p.state,
            p.done,
            p.busy_seconds,
            p.last_progress,
            p.port,
        )

    def pulse(self) -> Pulse:
        """What the worker last said."""
        worker, *rest = _HEADER.unpack_from(self._buffer, 0)
        return Pulse(worker.rstrip(b"\0").decode(), *rest)


def _memory(size: int) -> int:
    """A file descriptor of zeroed memory that no path leads to."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("rf-jobs-leases")
    else:  # macOS
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.ftruncate(fd, size)
    return fd
