"""Calls about limits, holds and locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.commands import Commands


def define(name: str, fields: Mapping[str, str], drop: Sequence[str] = ()) -> Call[None]:
    """Define a limit, or change it: set these fields, drop those. What it holds is looked at again."""
    args: list[Arg] = [name, len(drop), *drop, len(fields)]
    for field, value in fields.items():
        args += (field, value)
    return Call("admin", args, lambda _: None, "limit")


def hold(commands: Commands, scope: str, ms: int | None) -> Call[bool]:
    """Let nothing of a scope start for so long (0: until further notice), or, with None, let it start again. Answers whether
    that changed something."""
    value: Arg = "" if ms is None else ms
    return Call("admin", (*commands.retention.args(), scope, value), lambda r: bool(r[0]), "hold", 1)


def failure(job_class: str, most: int, per_ms: int, cooldown_ms: int) -> Call[bool]:
    """Count a failed attempt for its class's circuit breaker. Answers whether that opened it."""
    return Call("admin", (job_class, most, per_ms, cooldown_ms), bool, "breaker")


def holds(commands: Commands) -> Call[dict[str, str]]:
    """What is held, by scope: until when (ms), 0 for ever."""
    return Call("read", ("HGETALL", commands.keys.of("holds")), pairs)


def names(commands: Commands) -> Call[list[str]]:
    """Names of all limits."""
    return Call("read", ("SMEMBERS", commands.keys.of("limits")), lambda r: sorted(texts(list(r))))


def definition(commands: Commands, name: str) -> Call[dict[str, str]]:
    """A limit's fields: small letters are the code's, capitals an operator's."""
    return Call("read", ("HGETALL", commands.keys.of("limit", name)), pairs)


def holders(commands: Commands, ref: str, most: int = 100) -> Call[list[str]]:
    """Some of the running jobs that take a limit's places."""
    return Call("read", ("SRANDMEMBER", commands.keys.of("holders", ref), most), lambda r: sorted(texts(r)))


def running(commands: Commands, ref: str) -> Call[int]:
    """How many jobs take a limit's places."""
    return Call("read", ("SCARD", commands.keys.of("holders", ref)), int)


def held(commands: Commands, ref: str) -> Call[int]:
    """How many jobs a limit holds back."""
    return Call("read", ("ZCARD", commands.keys.of("held", ref)), int)


def due(commands: Commands, ref: str) -> Call[float | None]:
    """When a limit or a hold is looked at again (ms)."""

    def read(reply: Any) -> float | None:
        return None if reply is None else float(reply)

    return Call("read", ("ZSCORE", commands.keys.of("timers"), ref), read)


def next_timer(commands: Commands) -> Call[float | None]:
    """When the next of all limits and holds is looked at again (ms)."""

    def read(reply: Any) -> float | None:
        return float(reply[0][1] if isinstance(reply[0], (list, tuple)) else reply[1]) if reply else None

    return Call("read", ("ZRANGE", commands.keys.of("timers"), 0, 0, "WITHSCORES"), read)


def lock_holder(commands: Commands, digest: str) -> Call[str]:
    """Id of the job that holds a unique lock; '' for none. It may be over: then the next dispatch takes the lock."""
    return Call("read", ("GET", commands.keys.of("unique", digest)), lambda r: text(r).partition(" ")[0] if r else "")
