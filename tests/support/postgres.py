"""A PostgreSQL server of the tests' own: on a free port, in a folder of its own, as a user that is not root, without fsync."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.processes import wait_until

_USERS = ("postgres", "nobody")
"""Who may run it where we are root, whom it refuses."""


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    port: int
    folder: Path

    def url(self, database: str, driver: str = "psycopg") -> str:
        """A database's URL, as SQLAlchemy writes it; without a driver as PostgreSQL does."""
        plus = f"+{driver}" if driver else ""
        return f"postgresql{plus}://tester@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> None:
        self.run(f'CREATE DATABASE "{database}"')

    def drop(self, database: str) -> None:
        self.run(f'DROP DATABASE "{database}" WITH (FORCE)')

    def run(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database, ""), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


def binary(name: str) -> str:
    """``initdb`` or ``postgres``: Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: -float(path.parent.name))
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *map(str, folders)]))
    if found is None:
        pytest.fail(
            f"{name} was not found; install it (Debian: apt-get install postgresql) or run scripts/setup-test-tools"
        )
    return found


def _user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.fail(f"PostgreSQL refuses root, and there is no user {' or '.join(_USERS)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def server() -> Generator[Postgres]:
    """Start one; stopped and removed at the end, and ended with this process where ``setpriv`` can see to it."""
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="rf-jobs-pg-"))
    try:
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        _initialise(folder, user)
        port = _free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                _command(folder, port),
                cwd=folder,
                stdout=log,
                stderr=log,
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
            )
        try:
            running = Postgres(port, folder)
            wait_until(lambda: _answers(running, process), "PostgreSQL answers")
            yield running
        finally:
            process.send_signal(signal.SIGINT)  # its fast shutdown
            process.wait(20)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(folder: Path, user: pwd.struct_passwd | None) -> None:
    command = [
        binary("initdb"), "--pgdata", str(folder / "data"), "--username", "tester", "--auth", "trust", "--no-sync",
        "--no-locale", "--encoding", "UTF8",
    ]  # fmt: skip
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        capture_output=True,
        timeout=60,
        user=None if user is None else user.pw_uid,
        group=None if user is None else user.pw_gid,
        extra_groups=None if user is None else [],
    )


def _command(folder: Path, port: int) -> Sequence[str]:
    settings = {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "shared_buffers": "16MB",
        "max_connections": "60",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    command = [
        binary("postgres"),
        "-D",
        str(folder / "data"),
        "-k",
        str(folder),
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        *options,
    ]
    guard = shutil.which("setpriv")
    return [guard, "--pdeathsig", "INT", *command] if guard else command


def _answers(running: Postgres, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (running.folder / "log").read_text()
    try:
        running.run("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
