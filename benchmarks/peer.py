"""What the driver knows of a peer: how to install it, how to start its two programs, how to see that it is done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
ENVIRONMENTS = HERE / ".venv-peers"


class PeerUnavailableError(Exception):
    """This peer can't run here; says why. The others are measured without it."""


@dataclass(frozen=True)
class Command:
    """A program to start from the project's root, with what it needs in its environment besides ours."""

    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)


class Peer(ABC):
    """One row of the table."""

    name: str
    """As the table, the options and the JSON say it."""
    bulk = False
    """Whether there is a call that enqueues many jobs at once."""
    pings = False
    """Whether its enqueuing program can time bare round trips."""
    scale = 1
    """So many times ``--jobs`` for the drain, so that a fast peer's takes seconds too."""
    probes = 1
    """How many commands ``remaining`` sends; they are subtracted from what is counted."""

    def install(self) -> None:  # noqa: B027 - ours is there
        """Make what the programs need; does nothing when it is there. Raises ``PeerUnavailableError``."""

    @abstractmethod
    def client(self) -> Command:
        """The program that enqueues: ``apps/agent.py`` in the peer's environment, or its twin."""

    @abstractmethod
    def worker(self, redis_url: str) -> Command:
        """One worker process, with its supervisor where it comes with one."""

    @abstractmethod
    def remaining(self, server: Redis) -> int:
        """Jobs that are not finished and acknowledged; ``probes`` cheap commands."""

    @abstractmethod
    def versions(self) -> dict[str, str]:
        """Of the packages that matter."""


class PythonPeer(Peer):
    """A peer from PyPI, in a virtual environment of its own: their pins on redis-py exclude each other."""

    environment: str
    """Its folder below ``.venv-peers``."""
    requirements: tuple[str, ...]
    """Exact versions, so that results can be compared over time."""

    @property
    def home(self) -> Path:
        return ENVIRONMENTS / self.environment

    def program(self, name: str) -> str:
        """A program of the peer's environment."""
        return str(self.home / "bin" / name)

    def install(self) -> None:
        stamp = self.home / ".requirements"
        wanted = "\n".join((sys.version, *self.requirements))
        if stamp.is_file() and stamp.read_text() == wanted:
            return
        print(f"installing {', '.join(self.requirements)} into {self.home.relative_to(ROOT)}", file=sys.stderr)
        run_setup([sys.executable, "-m", "venv", "--clear", str(self.home)])
        pip = [self.program("python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run_setup([*pip, *self.requirements])
        stamp.write_text(wanted)

    def versions(self) -> dict[str, str]:
        listed = subprocess.run(
            [self.program("python"), "-m", "pip", "list", "--format=json", "--disable-pip-version-check"],
            check=True,
            capture_output=True,
            text=True,
        )
        known = {entry["name"].lower(): entry["version"] for entry in json.loads(listed.stdout)}
        names = {requirement.partition("=")[0].partition("[")[0].lower() for requirement in self.requirements}
        return {name: known[name] for name in sorted(names | {"redis"}) if name in known}


def run_setup(argv: Sequence[str], cwd: Path = ROOT) -> None:
    """Run an installing step; what it said is shown when it fails. What is downloaded stays in the project's folder."""
    caches = {"PIP_CACHE_DIR": str(ROOT / ".cache" / "pip"), "npm_config_cache": str(ROOT / ".cache" / "npm")}
    done = subprocess.run(
        argv,
        check=False,
        cwd=cwd,
        env={**caches, **os.environ},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:])
        raise PeerUnavailableError(f"{' '.join(argv[:5])} … failed with {done.returncode}: {said}")
