"""The Lua scripts: their texts, put together from shared parts, and their digests.

Where the server knows script flags (Redis 7, Valkey), everything but ``enqueue`` may run out of memory's bounds: under
pressure only dispatch is refused, and the queues still drain.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

_MOVING = ("limits", "links", "batches", "admit")
"""What a script needs that moves jobs."""
_MOVING_SCRIPTS = {
    **dict.fromkeys(
        (
            "batch_expect", "batch_open", "batch_seal", "batch_stop", "bury_parked", "cancel", "clear", "enqueue", "fetch", "hold", "move", "revive",
            "schedule_fire", "settle",
        ),
        _MOVING,
    ),
    "finish": (*_MOVING, "crash"),
    "reclaim": (*_MOVING, "crash"),
    "deliver": (*_MOVING, "abroad"),
}  # fmt: skip
_LIBS: dict[str, tuple[str, ...]] = {**_MOVING_SCRIPTS}
_REFUSED_WHEN_FULL = ("batch_expect", "batch_open", "enqueue", "schedule_fire", "schedule_put")
_SERVER_TIME = "redis.call('TIME')"
"""Where the scripts have the time from; it stands once, in lib/prelude.lua."""
_time = [_SERVER_TIME]


def tell_time_by(lua: str | None) -> None:
    """Have all scripts that this process sends from now on go by this Lua expression, ``{seconds, microseconds}`` of numbers;
    None: by the server's clock, as always but in tests that move it (``rf_jobs.testing``)."""
    _time[0] = lua or _SERVER_TIME
    load.cache_clear()


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
    text = "\n".join(parts).replace(_SERVER_TIME, _time[0], 1)
    if flags:
        shebang = "#!lua" if name in _REFUSED_WHEN_FULL else "#!lua flags=allow-oom"
        text = f"{shebang}\n{text}"
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
