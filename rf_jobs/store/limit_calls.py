"""Calls about limits, holds and locks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.commands import Commands


def define(commands: Commands, name: str, fields: Mapping[str, str], drop: Sequence[str] = ()) -> Call[None]:
    """Define a limit, or change it: set these fields, drop those. What it holds is looked at again."""
    args: list[Arg] = [name, len(drop), *drop, len(fields)]
    for field, value in fields.items():
        args += (field, value)
    return commands.everywhere(
        lambda _, number: Call("admin", args, lambda _: None, "limit", shard=number), lambda _: None
    )


def hold(commands: Commands, scope: str, ms: int | None) -> Call[bool]:
    """Let nothing of a scope start for so long (0: until further notice), or, with None, let it start again. Answers whether
    that changed something."""
    args = (*commands.retention.args(), scope, "" if ms is None else ms)
    return commands.everywhere(lambda _, number: Call("admin", args, lambda r: bool(r[0]), "hold", 1, number), any)


def failure(commands: Commands, queue: str, job_class: str, most: int, per_ms: int, cooldown_ms: int) -> Call[bool]:
    """Count a failed attempt for its class's circuit breaker, in its queue's shard. Answers whether that opened it."""
    args = (job_class, most, per_ms, cooldown_ms)
    return Call("admin", args, bool, "breaker", shard=commands.shards.of(queue))


def holds(commands: Commands) -> Call[dict[str, str]]:
    """What is held, by scope: until when (ms), 0 for ever."""
    return commands.everywhere(
        lambda keys, number: Call("read", ("HGETALL", keys.of("holds")), pairs, shard=number),
        lambda answers: {scope: until for answer in reversed(answers) for scope, until in answer.items()},
    )


def names(commands: Commands) -> Call[list[str]]:
    """Names of all limits."""
    return commands.everywhere(
        lambda keys, number: Call(
            "read", ("SMEMBERS", keys.of("limits")), lambda r: sorted(texts(list(r))), shard=number
        ),
        lambda answers: sorted({name for answer in answers for name in answer}),
    )


def definition(commands: Commands, name: str) -> Call[dict[str, str]]:
    """A limit's fields: small letters are the code's, capitals an operator's."""
    return commands.by_id(lambda keys: ("HGETALL", keys.of("limit", name)), pairs)


def holders(commands: Commands, ref: str, most: int = 100) -> Call[list[str]]:
    """Some of the running jobs that take a limit's places."""
    return commands.by_id(lambda keys: ("SRANDMEMBER", keys.of("holders", ref), most), lambda r: sorted(texts(r)))


def running(commands: Commands, ref: str) -> Call[int]:
    """How many jobs take a limit's places."""
    return commands.by_id(lambda keys: ("SCARD", keys.of("holders", ref)), int)


def held(commands: Commands, ref: str) -> Call[int]:
    """How many jobs a limit holds back."""
    return commands.by_id(lambda keys: ("ZCARD", keys.of("held", ref)), int)


def due(commands: Commands, ref: str) -> Call[float | None]:
    """When a limit or a hold is looked at again (ms)."""

    def read(reply: Any) -> float | None:
        return None if reply is None else float(reply)

    return commands.by_id(lambda keys: ("ZSCORE", keys.of("timers"), ref), read)


def next_timer(commands: Commands) -> Call[float | None]:
    """When the next of all limits and holds is looked at again (ms)."""

    def read(reply: Any) -> float | None:
        return float(reply[0][1] if isinstance(reply[0], (list, tuple)) else reply[1]) if reply else None

    return commands.everywhere(
        lambda keys, number: Call("read", ("ZRANGE", keys.of("timers"), 0, 0, "WITHSCORES"), read, shard=number),
        lambda answers: min((at for at in answers if at is not None), default=None),
    )


def lock_holder(commands: Commands, digest: str) -> Call[str]:
    """Id of the job that holds a unique lock; '' for none. It may be over: then the next dispatch takes the lock."""
    return commands.by_id(
        lambda keys: ("GET", keys.of("unique", digest)), lambda r: text(r).partition(" ")[0] if r else ""
    )
