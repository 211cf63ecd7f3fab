"""The Lua scripts: their texts, put together from shared parts, and their digests.

Where the server knows script flags (Redis 7, Valkey), everything but ``enqueue`` may run out of memory's bounds: under
pressure only dispatch is refused, and the queues still drain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_LIBS = {"finish": ("crash",), "reclaim": ("crash",)}
NAMES = (
    "beat", "bury_parked", "bye", "cancel", "clear", "enqueue", "fetch", "finish", "flush", "forget", "hello", "keep",
    "lease", "memory", "pause", "reclaim", "revive", "survey", "unpark", "watch",
)  # fmt: skip
_REFUSED_WHEN_FULL = ("enqueue",)


@dataclass(frozen=True)
class Script:
    """A script for one kind of server."""

    name: str
    text: str
    digest: str


def _read(path: str) -> str:
    return files("rf_jobs.store").joinpath("lua", *path.split("/")).read_text("utf-8")


@cache
def load(name: str, *, flags: bool) -> Script:
    """The script of this name; ``flags``: the server understands a ``#!lua`` line."""
    parts = [_read("lib/prelude.lua"), *(_read(f"lib/{lib}.lua") for lib in _LIBS.get(name, ())), _read(f"{name}.lua")]
    text = "\n".join(parts)
    if flags:
        shebang = "#!lua" if name in _REFUSED_WHEN_FULL else "#!lua flags=allow-oom"
        text = f"{shebang}\n{text}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
