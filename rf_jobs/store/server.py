"""What both executors know of a server: whether it is fit, which scripts it has, and how a call is put on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rf_jobs.store.calls import Call
from rf_jobs.store.commands import Commands
from rf_jobs.store.keys import SCHEMA_VERSION, Shards
from rf_jobs.store.scripts import Script, load
from rf_jobs.store.shapes import Greeting
from rf_jobs.words.config_secrets import mask_url
from rf_jobs.words.errors import BackendError

SAFE_POLICY = "noeviction"


class Server:
    """What first contact taught us."""

    def __init__(self, shards: Shards, url: str, *, allow_eviction: bool) -> None:
        self.shards = shards
        self.commands = Commands(shards)
        self.shown_url = mask_url(url)
        self.flags: bool | None = None
        self.instance = ""
        self.version = ""
        self.allow_eviction = allow_eviction

    def script(self, name: str) -> Script:
        return load(name, flags=bool(self.flags))

    def wire(self, call: Call[Any]) -> tuple[Any, ...]:
        if call.script:
            ledger = self.shards.keys[call.shard].ledger
            return ("EVALSHA", self.script(call.script).digest, 1, ledger, *call.args)
        return tuple(call.args)

    def learn(self, info: dict[str, Any]) -> None:
        """Judge the server from its INFO; raises ``BackendError`` where it is not fit to hold jobs."""
        self.version = str(info.get("valkey_version") or info.get("redis_version") or "0")
        known = tuple(int(part) for part in str(info.get("redis_version", "0.0")).split(".")[:2])
        if known < (6, 2):
            raise BackendError(
                f"the server at {self.shown_url} is version {self.version}; rf-jobs needs Redis 6.2 or Valkey 7.2"
            )
        self.flags = known >= (7, 0)
        policy = str(info.get("maxmemory_policy", SAFE_POLICY))
        if policy != SAFE_POLICY and not self.allow_eviction:
            raise BackendError(
                f"the server at {self.shown_url} has maxmemory-policy {policy!r} and may drop jobs in silence;"
                f" set it to {SAFE_POLICY!r}, or allow it with allow_evicting_server in [jobs.security]"
            )

    def welcome(self, reply: Greeting) -> None:
        """Judge the store from what it says of itself; raises ``BackendError`` where it is another one than the settings say."""
        schema, self.instance, parts = reply
        shards = parts[0][0]
        if schema != SCHEMA_VERSION:
            raise BackendError(
                f"the store at {self.shown_url} has schema version {schema}, this code works with {SCHEMA_VERSION};"
                " run the version of rf-jobs that fits, or use another namespace"
            )
        if shards != len(self.shards):
            raise BackendError(
                f"the store at {self.shown_url} is divided into {shards} shards, and shards is {len(self.shards)} here: its jobs would"
                f" not be found; set shards to {shards} in [jobs], or use another namespace"
            )
        for number, part in enumerate(parts):
            if part != (shards, number):
                prefix = self.shards.keys[number].prefix.rstrip(":")
                raise BackendError(
                    f"in the store at {self.shown_url} the keys of {prefix} belong to another namespace, or to a shard of one: the jobs"
                    " of both would be mixed; use another namespace"
                )


def gathered(calls: Sequence[Call[Any]], answers: Sequence[Any]) -> list[Any]:
    """What calls answer, from what they and the parts of those that have some do."""
    rest = iter(answers)
    return [call.read([next(rest) for _ in call.parts]) if call.parts else next(rest) for call in calls]
