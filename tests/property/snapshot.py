"""Everything that a server holds, read at one instant, and what must be true of it whatever happened before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import redis

from rf_jobs.store.keys import JOB_KEYS, KEYS, STATE_KEYS

_DUMP = """
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key).ok
  local value
  if kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'stream' then value = {tostring(redis.call('XLEN', key))}
  else value = {redis.call('GET', key)} end
  out[#out + 1] = {key, kind, redis.call('PTTL', key), value}
end
local clock = redis.call('TIME')
return {string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)), out}
"""
FAMILIES = {(key.name.partition(":")[0], ":" in key.name): key for key in KEYS}
STANDING = {family: state for state, family in STATE_KEYS.items()}
FINAL_FAMILIES = ("done", "dead", "cancelled", "expired")
EXTRAS = ("errors", "timeline", "result", "progress", "checkpoint", "steps", "joblog", "inputs")
OF_JOBS = (*JOB_KEYS, "parents", "inputs")
OF_GROUPS = ("pending", "failed")
OF_BOTH = ("dependents", "undone")
MUST_EXPIRE = ("worker", "cancels", "flushed", "result")


@dataclass
class Snapshot:
    """One reading."""

    now_ms: int
    prefix: str
    zsets: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    """By (family, member); in the order of the scores."""
    hashes: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    sets: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    lists: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    strings: dict[tuple[str, str], str] = field(default_factory=dict)
    streams: dict[tuple[str, str], int] = field(default_factory=dict)
    """How long they are."""
    ttl: dict[tuple[str, str], int] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)

    @property
    def has_work(self) -> bool:
        """Whether consequences are still to be drawn, or carried to another shard."""
        return ("outbox", "") in self.lists or any(self.streams.values())

    def members(self, family: str) -> dict[str, str]:
        """Id to queue, of all queues' sets of this family."""
        return {job: queue for (kind, queue), jobs in self.zsets.items() if kind == family for job in jobs}

    def order(self, family: str, queue: str) -> list[str]:
        return list(self.zsets.get((family, queue), {}))

    def add(self, other: Snapshot) -> None:
        """What another shard holds, too."""
        self.zsets.update(other.zsets)
        self.strings.update(other.strings)
        self.ttl.update(other.ttl)
        for place, fields in other.hashes.items():
            self.hashes[place] = self.hashes.get(place, {}) | fields
        for place, members in other.sets.items():
            self.sets[place] = self.sets.get(place, set()) | members
        for place, items in other.lists.items():
            self.lists[place] = self.lists.get(place, []) + items
        for place, length in other.streams.items():
            self.streams[place] = self.streams.get(place, 0) + length

    def job_ids(self) -> set[str]:
        return {member for family, member in self.strings if family == "job"}

    def group_ids(self) -> set[str]:
        return {member for family, member in self.hashes if family == "batch"}

    def meta(self, job_id: str) -> dict[str, str]:
        return self.hashes.get(("meta", job_id), {})

    def ledger(self) -> dict[str, int]:
        return {name: int(value) for name, value in self.hashes.get(("ledger", ""), {}).items() if int(value)}

    def content(self) -> tuple[object, ...]:
        """All but the clock, for asking whether anything changed."""
        ordered = {key: list(jobs.items()) for key, jobs in self.zsets.items()}
        return ordered, self.hashes, self.sets, self.lists, self.strings


def take(client: redis.Redis, prefix: str = "{rf}:") -> Snapshot:
    """Read everything, in one script."""
    now, rows = cast("tuple[bytes, list[Any]]", client.eval(_DUMP, 0))
    snapshot = Snapshot(int(now), prefix)
    for raw_key, raw_kind, ttl, raw in rows:
        key, kind = raw_key.decode(), raw_kind.decode()
        value = [item.decode("utf-8", "replace") for item in raw]
        if not key.startswith(prefix):
            snapshot.foreign.append(key)
            continue
        family, _, member = key[len(prefix) :].partition(":")
        place = (family, member)
        snapshot.ttl[place] = ttl
        flat = list(zip(value[::2], value[1::2], strict=False))
        if kind == "zset":
            snapshot.zsets[place] = {name: float(score) for name, score in flat}
        elif kind == "hash":
            snapshot.hashes[place] = dict(flat)
        elif kind == "set":
            snapshot.sets[place] = set(value)
        elif kind == "list":
            snapshot.lists[place] = value
        elif kind == "stream":
            snapshot.streams[place] = int(value[0])
        else:
            snapshot.strings[place] = value[0]
    return snapshot


def faults(snapshot: Snapshot) -> list[str]:
    """What is wrong with a store, in words: leaked keys, jobs that stand nowhere or twice, records that disagree."""
    return [*_strange_keys(snapshot), *_misplaced_jobs(snapshot), *_leftovers(snapshot)]


def _strange_keys(snapshot: Snapshot) -> list[str]:
    found = [f"{key} is outside of {snapshot.prefix}" for key in snapshot.foreign]
    kinds = {
        "zset": snapshot.zsets,
        "hash": snapshot.hashes,
        "set": snapshot.sets,
        "list": snapshot.lists,
        "string": snapshot.strings,
    }
    for kind, places in kinds.items():
        for family, member in cast("dict[tuple[str, str], object]", places):
            known = FAMILIES.get((family, bool(member)))
            if known is None:
                found.append(f"{family}:{member} belongs to no family in store/keys.py")
            elif known.type != kind:
                found.append(f"{family}:{member} is a {kind}, store/keys.py says {known.name} is a {known.type}")
            elif family in MUST_EXPIRE and snapshot.ttl[family, member] < 0:
                found.append(f"{family}:{member} never expires, store/keys.py says it lives {known.lives}")
    return found


def _misplaced_jobs(snapshot: Snapshot) -> list[str]:
    found = []
    standing: dict[str, list[tuple[str, str]]] = {}
    for (family, queue), jobs in snapshot.zsets.items():
        if family in STANDING:
            for job in jobs:
                standing.setdefault(job, []).append((STANDING[family], queue))
            if queue not in snapshot.sets.get(("queues", ""), set()):
                found.append(f"{family}:{queue} holds jobs, but queues does not know {queue}")
    found += [f"job {job} stands nowhere" for job in snapshot.job_ids() - set(standing)]
    for job, places in standing.items():
        if len(places) > 1:
            found.append(f"job {job} stands in {places}")
        if ("job", job) not in snapshot.strings:
            found.append(f"job {job} stands in {places} and has no envelope")
        state, queue = places[0]
        meta = snapshot.meta(job)
        if state not in ("ready", "scheduled", "blocked") and not meta:
            found.append(f"job {job} is {state} and has no meta")
        if meta.get("state", state) != state or meta.get("queue", queue) != queue:
            found.append(f"job {job} is {state} on {queue}, its meta says {meta}")
        if meta.get("held") and state in ("ready", "scheduled", "parked", "running"):
            found.append(f"job {job} is {state} and held by {meta['held']}")
        if state == "running" and not meta.get("token"):
            found.append(f"job {job} runs without a token")
    return found


def _leftovers(snapshot: Snapshot) -> list[str]:
    found = []
    jobs, groups = snapshot.job_ids(), snapshot.group_ids()
    extras = snapshot.sets.get(("extras", ""), set())
    for (family, member), ttl in snapshot.ttl.items():
        if family in OF_JOBS and member not in jobs:
            found.append(f"{family}:{member} has outlived its job")
        if family in OF_GROUPS and member not in groups:
            found.append(f"{family}:{member} has outlived its batch")
        # Consequences of its end that are still in the outbox need its dependents.
        if family in OF_BOTH and member not in jobs | groups and not snapshot.has_work:
            found.append(f"{family}:{member} has outlived its job or batch")
        if family == "undone" and member in jobs and member not in extras:
            found.append(f"undone:{member} exists, but extras does not know it: it would outlive its job")
        if family in (*OF_GROUPS, *OF_BOTH) and ttl < 0 <= snapshot.ttl.get(("batch", member), -1):
            found.append(f"{family}:{member} would outlive its batch")
        if family in EXTRAS and member not in extras:
            found.append(f"{family}:{member} exists, but extras does not know it: it would outlive its job")
    found += [f"extras holds {job}, which is gone" for job in extras - jobs]
    over = {job for family in FINAL_FAMILIES for job in snapshot.members(family)}
    for job in snapshot.sets.get(("watched", ""), set()):
        if job in over or job not in jobs:
            found.append(f"watched holds {job}, which is over")
    return found
