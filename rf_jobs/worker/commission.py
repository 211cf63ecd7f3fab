"""What a supervisor hands to a process that it starts, and how it starts one.

A child is a fresh interpreter: it inherits no lock, no thread and no half-made client, whatever the job modules do when
they are imported, and it has the code that is on the disk when it starts. By inheritance it has two things, a socket to the
supervisor and its lease table's memory; the first line on the socket is its commission.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from rf_jobs.words.config_settings import Settings, WorkerSettings
from rf_jobs.words.errors import BackendError, ConfigError, RfJobsError, WorkerError
from rf_jobs.worker.pool import WorkerPool

PROTOCOL = 1
"""Of the commission, the orders and the lease table: raised when a child of another version could not work with them."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP)
"""Those that the supervisor has a meaning for. Its children hear of them from it, by ``NEXT_STAGE`` and by orders."""
NEXT_STAGE = signal.SIGUSR2
"""To a child: stop, the second time at once. Not SIGTERM, which a child may get from elsewhere besides: systemd, say, sends it
to all processes of a service, and the supervisor's own must not count as the second."""


class Commission(msgspec.Struct, kw_only=True):
    """What a child is to do."""

    protocol: int = PROTOCOL
    name: str
    """Of its place: ``0``, or with sets ``mail/0``."""
    settings: Settings
    worker: WorkerSettings
    """Of its set."""
    capacity: int
    """Records of its lease table."""
    parent: int
    equip: str = ""
    path: list[str]
    """The supervisor's ``sys.path``: what the child's own lacks is put behind it."""
    port: int = 0
    """Where the supervisor's page is served; 0 for nowhere."""
    readings: str = ""
    """The path of the socket on which the child gives its metrics to that page; '' where nobody asks."""


class Failure(msgspec.Struct):
    """A child's last word, where it cannot begin."""

    kind: str
    message: str

    def error(self) -> RfJobsError:
        """As the supervisor would raise it."""
        kinds: dict[str, type[RfJobsError]] = {"ConfigError": ConfigError, "BackendError": BackendError}
        return kinds.get(self.kind, WorkerError)(self.message)


Attach = Callable[[WorkerPool], AbstractAsyncContextManager[None]]
"""Entered around a child's pool, in the child."""
Equip = Callable[[Commission], Attach | None]
"""Called in each child before anything else: sets logging up, imports what it needs, and answers with what belongs around
the pool."""


def equipment(name: str) -> Equip:
    """The function that ``module:function`` names. Raises ``ConfigError``."""
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"equip is {name!r}: {error}; give the function that each process calls first, as 'package.module:function'"
        ) from error
    equip: Equip = found
    return equip


class Starter:
    """Starts interpreters of the deployment as it is now: a ``current`` link that has been moved is followed."""

    def __init__(self) -> None:
        here = os.environ.get("PWD", "")
        with contextlib.suppress(OSError):
            if not (here and Path(here).samefile(Path.cwd())):
                here = ""
        self._here = here
        # The working directory comes first on the path only when ours are loaded: it may well have a queue.py or an email.py.
        self._flags = [] if Path(__file__).parents[2] == Path.cwd() else ["-P"]

    def start(self, module: str, *arguments: str, fds: tuple[int, ...]) -> subprocess.Popen[bytes]:
        """Run ``module`` with these arguments and file descriptors; ``SIGNALS`` are blocked in it until it unblocks them, so
        that none kills it before there is somebody to hear. Raises ``OSError``."""
        command = [sys.executable, *self._flags, "-m", module, *arguments]
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            here = self._here if self._here and Path(self._here).is_dir() else None
            return subprocess.Popen(command, pass_fds=fds, stdin=subprocess.DEVNULL, cwd=here)  # noqa: S603 (ourselves)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def receive(end: socket.socket) -> tuple[bytes, bytes]:
    """The first line that comes, and what came behind it. Raises ``EOFError`` where the other end is gone."""
    data = b""
    while b"\n" not in data:
        more = end.recv(65536)
        if not more:
            raise EOFError("the supervisor is gone")
        data += more
    line, _, rest = data.partition(b"\n")
    return line, rest
