"""A Redis or Valkey server of our own, for development, the demo and tests.

``EmbeddedServer.start(directory)`` starts one whose data lives in ``directory``, or finds the one that runs there
already; ``EmbeddedServer.ephemeral()`` starts one in a temporary directory that keeps nothing. Never used unasked.

How two starts don't race, and how a running server is found again: the server process itself holds a lock on
``server.lock`` (an inherited descriptor), so the kernel says whether one lives, whatever died how. Who gets the lock
starts a server; who doesn't reads its address from ``server.json``.

Only this user can reach it: the directory has mode 0700, and the server listens on a Unix socket in it. Asked for a
port, it listens on 127.0.0.1 and wants a random password, which stands in files of mode 0600 alone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rf_jobs.store.embedded_process import (
    Address,
    Lock,
    ask,
    find_server_binary,
    free_port,
    is_private,
    make_private,
    reap,
    server_pid,
    spawn,
    write_private,
)
from rf_jobs.words.errors import BackendError, ConfigError

START_SECONDS = 30.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.005
MAX_SOCKET_PATH = 100
"""Bytes; Linux takes 107 and macOS 103."""


class EmbeddedServer:
    """A server that runs: from ``start`` until ``stop`` or ``kill``.

    Without ``die_with_parent`` it outlives this process, on purpose, and the next ``start`` finds it. After a kill or a
    crash a persistent one may have lost its last second (AOF, fsync every second).
    """

    def __init__(self, directory: Path, address: Address, pid: int, *, started: bool) -> None:
        self.directory = directory
        self.url = address.url
        self.port = address.port
        self.pid = pid
        self.started = started
        """False where it ran already and was found again."""
        self.temporary = False
        """Whether ``stop`` removes the directory."""
        self._address = address
        self._owner = os.getpid()

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        persistent: bool = True,
        port: int | None = None,
        extra_args: Sequence[str] = (),
        binary: Path | None = None,
        die_with_parent: bool = False,
    ) -> Self:
        """Start a server in ``directory``, or find the one that runs there.

        ``port=None`` is a Unix socket; ``0`` any free port of 127.0.0.1, the same as last time if it is still free.
        ``extra_args`` are passed to the server (``["--maxmemory", "64mb"]``); like ``binary`` and ``die_with_parent``
        they count only where it is started. Raises ``BackendError`` where no server program is found, or it doesn't
        start, or the one that runs is of the other kind.
        """
        directory = make_private(Path(directory).absolute())
        deadline = time.monotonic() + START_SECONDS
        while True:
            lock = Lock.take(directory)
            if lock is not None:
                with lock:
                    address = _choose_address(directory, port)
                    _configure(directory, address, persistent=persistent)
                    command = [str(find_server_binary(binary)), str(directory / "server.conf"), *extra_args]
                    death_signal = signal.SIGTERM if persistent else signal.SIGKILL
                    spawn(command, directory, lock, death_signal if die_with_parent else None)
                server = cls(directory, address, _wait_until_ready(directory, address), started=True)
                if die_with_parent:
                    atexit.register(server._at_exit)
                return server
            last = Address.read(directory)
            answer = ask(last) if last is not None else None
            if last is not None and answer is not None and answer.ready:
                server = cls(directory, last, answer.pid, started=False)
                _check_same_kind(server, port)
                return server
            if answer is not None:  # it loads its data, however long that takes
                deadline = time.monotonic() + START_SECONDS
            if time.monotonic() > deadline:
                raise BackendError(_stuck(directory))
            time.sleep(POLL_SECONDS)

    @classmethod
    def ephemeral(
        cls,
        *,
        port: int | None = None,
        extra_args: Sequence[str] = (),
        binary: Path | None = None,
        die_with_parent: bool = True,
    ) -> Self:
        """Start a server in a new temporary directory, without persistence; ``stop`` removes the directory."""
        directory = Path(tempfile.mkdtemp(prefix="rf-jobs-"))
        try:
            server = cls.start(
                directory,
                persistent=False,
                port=port,
                extra_args=extra_args,
                binary=binary,
                die_with_parent=die_with_parent,
            )
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        server.temporary = True
        return server

    @property
    def running(self) -> bool:
        """Whether this very process lives: the lock is held, and not by a successor in the same directory."""
        if not self.directory.is_dir():
            return False
        lock = Lock.take(self.directory)
        if lock is not None:
            lock.release()
            return False
        return server_pid(self.directory) in {None, self.pid}

    def stop(self) -> None:
        """End it in order: what was written is on the disk afterwards. No error where it is gone already."""
        self._signal(signal.SIGTERM)
        if not self._wait_until_gone(STOP_SECONDS):
            self.kill()
        atexit.unregister(self._at_exit)
        if self._address.socket is not None and self._address.socket.parent != self.directory:
            shutil.rmtree(self._address.socket.parent, ignore_errors=True)
        if self.temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self) -> None:
        """SIGKILL, as the kernel or a power cut would; the data stays for the next ``start`` of this directory."""
        self._signal(signal.SIGKILL)
        if not self._wait_until_gone(STOP_SECONDS):
            raise BackendError(
                f"the server in {self.directory} (pid {self.pid}) survived SIGKILL; see its process state"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it, unless it ran before."""
        if self.started and os.getpid() == self._owner:
            self.stop()

    def _signal(self, number: signal.Signals) -> None:
        if self.running:  # so the pid can't be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def _wait_until_gone(self, limit: float) -> bool:
        deadline = time.monotonic() + limit
        while self.running:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        reap()
        return True

    def _at_exit(self) -> None:
        if os.getpid() == self._owner:  # not in a forked child
            self.stop()


def _choose_address(directory: Path, port: int | None) -> Address:
    """Last time's address where it still fits, so that clients find a restarted server; else a new one."""
    last = Address.read(directory)
    if port is not None:
        if last is not None and last.port and port in {0, last.port} and free_port(last.port):
            return last
        if port and not free_port(port):
            raise BackendError(f"port {port} of 127.0.0.1 is in use; give another, or 0 for any free one")
        return Address(port=port or free_port(0), password=os.urandom(16).hex())
    socket = directory / "server.sock"
    if len(os.fsencode(socket)) <= MAX_SOCKET_PATH:
        return Address(socket=socket)
    if last is not None and last.socket is not None and is_private(last.socket.parent):
        return last
    place = Path(tempfile.mkdtemp(prefix="rf-jobs-"))
    if len(os.fsencode(place / "server.sock")) > MAX_SOCKET_PATH:
        place.rmdir()
        raise BackendError(
            f"{directory} and {place} are too long for a Unix socket; use port=0, or a shorter directory"
        )
    return Address(socket=place / "server.sock")


def _configure(directory: Path, address: Address, *, persistent: bool) -> None:
    """Write ``server.conf``: in a file, because arguments are seen by every user of the machine."""
    lines = [
        *address.config(),
        f"dir {_quoted(directory)}",
        f"pidfile {_quoted(directory / 'server.pid')}",
        f"logfile {_quoted(directory / 'server.log')}",
        "protected-mode yes",
        "daemonize no",
        "maxmemory-policy noeviction",
        'save ""',
        *(["appendonly yes", "appendfsync everysec"] if persistent else ["appendonly no"]),
    ]
    (directory / "server.pid").unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        (directory / "server.log").replace(directory / "server.log.old")
    write_private(directory / "server.conf", "\n".join(lines) + "\n")
    address.write(directory)


def _quoted(path: Path) -> str:
    text = str(path)
    if not text.isprintable():
        raise ConfigError(f"the directory {text!r} of the embedded server holds control characters; use another")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wait_until_ready(directory: Path, address: Address) -> int:
    deadline = time.monotonic() + START_SECONDS
    while True:
        answer = ask(address)
        if answer is not None and answer.ready:
            return answer.pid
        lock = Lock.take(directory)
        if lock is not None:
            lock.release()
            raise BackendError(
                f"the embedded server in {directory} ended as it started; it said: {_log_tail(directory)}"
            )
        if answer is None and time.monotonic() > deadline:
            raise BackendError(
                f"the embedded server in {directory} does not answer after {START_SECONDS:g} s; it said: {_log_tail(directory)}"
            )
        time.sleep(POLL_SECONDS)


def _check_same_kind(server: EmbeddedServer, port: int | None) -> None:
    running = server.port
    if (port is None) != (running is None) or (port and port != running):
        place = "a Unix socket" if running is None else f"port {running}"
        asked = "a Unix socket" if port is None else f"port {port or '(any)'}"
        raise BackendError(
            f"the embedded server in {server.directory} (pid {server.pid}) runs on {place}, and {asked} was asked for;"
            " stop it first, or use another directory"
        )


def _stuck(directory: Path) -> str:
    pid = server_pid(directory)
    return (
        f"an embedded server (pid {pid or 'unknown'}) holds {directory} and has not answered for {START_SECONDS:g} s;"
        f" end it ({f'kill {pid}' if pid else 'find it with fuser server.lock'}), or use another directory"
    )


def _log_tail(directory: Path) -> str:
    with contextlib.suppress(OSError):
        text = (directory / "server.log").read_text(errors="replace").strip()
        if text:
            return " | ".join(text.splitlines()[-5:])
    return "nothing"
