"""The plain reads of the store, as ``Call``s: what needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.keys import STATE_KEYS, Keys, glob
from rf_jobs.words.states import State


class Reads:
    """Makes calls for one namespace."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def range(
        self, state: State, queue: str, offset: int, limit: int, *, newest_first: bool = False
    ) -> Call[list[tuple[str, float]]]:
        """Ids of a queue's state with their scores."""
        key = self.keys.of(STATE_KEYS[state], queue)
        args: list[Arg] = ["ZRANGE", key, offset, offset + limit - 1]
        args += ["REV", "WITHSCORES"] if newest_first else ["WITHSCORES"]
        return Call("read", args, _scored)

    def due_before(self, state: State, queue: str, before_ms: int, limit: int) -> Call[list[str]]:
        """Ids of a queue's state whose score lies before a time."""
        key = self.keys.of(STATE_KEYS[state], queue)
        return Call("read", ("ZRANGEBYSCORE", key, "-inf", before_ms, "LIMIT", 0, limit), texts)

    def count(self, state: State, queue: str) -> Call[int]:
        return Call("read", ("ZCARD", self.keys.of(STATE_KEYS[state], queue)), int)

    def position(self, state: State, queue: str, job_id: str) -> Call[int | None]:
        """The job's rank in a queue's state, None where it is not there."""
        return Call("read", ("ZRANK", self.keys.of(STATE_KEYS[state], queue), job_id), lambda r: r)

    def score(self, state: State, queue: str, job_id: str) -> Call[float | None]:
        key = self.keys.of(STATE_KEYS[state], queue)
        return Call("read", ("ZSCORE", key, job_id), lambda r: None if r is None else float(r))

    def envelopes(self, ids: Sequence[str]) -> Call[list[bytes | None]]:
        return Call("read", ("MGET", *(self.keys.of("job", job_id) for job_id in ids)), list)

    def meta(self, job_id: str) -> Call[dict[str, str]]:
        return Call("read", ("HGETALL", self.keys.of("meta", job_id)), pairs)

    def kept(self, family: str, job_id: str) -> Call[bytes | None]:
        """A job's result, progress or checkpoint."""
        return Call("read", ("GET", self.keys.of(family, job_id)), lambda r: r)

    def lines(self, family: str, job_id: str) -> Call[list[bytes]]:
        """A job's errors or timeline."""
        return Call("read", ("LRANGE", self.keys.of(family, job_id), 0, -1), list)

    def last_lines(self, family: str, job_id: str, count: int) -> Call[list[bytes]]:
        """The last of a job's errors."""
        return Call("read", ("LRANGE", self.keys.of(family, job_id), -count, -1), list)

    def steps(self, job_id: str) -> Call[dict[str, bytes]]:
        """What a job's done steps answered with, by their names."""
        return Call("read", ("HGETALL", self.keys.of("steps", job_id)), _by_name)

    def workers(self) -> Call[list[tuple[str, float]]]:
        """Ids of workers, with the time until which each is believed alive (ms)."""
        return Call("read", ("ZRANGE", self.keys.of("workers"), 0, -1, "WITHSCORES"), _scored)

    def worker(self, worker: str) -> Call[dict[str, str]]:
        return Call("read", ("HGETALL", self.keys.of("worker", worker)), pairs)

    def queues(self) -> Call[list[str]]:
        return Call("read", ("SMEMBERS", self.keys.of("queues")), lambda r: sorted(texts(list(r))))

    def unsettled(self) -> Call[int]:
        """How many consequences of what has happened are still to be drawn."""
        return Call("read", ("LLEN", self.keys.of("outbox")), int)

    def skipped(self) -> Call[list[str]]:
        """Consequences that could not be drawn, each with the time (ms) and why; the oldest first."""
        return Call("read", ("LRANGE", self.keys.of("outbox", "skipped"), 0, -1), _printable)

    def metrics(self) -> Call[dict[str, str]]:
        return Call("read", ("HGETALL", self.keys.of("metrics")), pairs)

    def exemplars(self) -> Call[dict[str, str]]:
        return Call("read", ("HGETALL", self.keys.of("exemplars")), pairs)

    def info(self) -> Call[Any]:
        return Call("read", ("INFO",), lambda r: r)

    def time(self) -> Call[int]:
        """The server's clock, in ms, as the scripts see it."""
        return Call("read", (), int, "time")

    def travel(self, clock: str, *, leases_end: bool) -> Call[int]:
        """For tests: move the clock that scripts see, where they were told to look (``scripts.tell_time_by``). ``clock``:
        '+<ms>' or '-<ms>' beside the server's own, '=<ms>' stands still, '' is the server's own. Answers with its time (ms)."""
        return Call("admin", (clock, int(leases_end)), int, "travel")

    def ping(self) -> Call[bool]:
        return Call("read", ("PING",), bool)

    def exists(self, family: str, job_id: str) -> Call[bool]:
        return Call("read", ("EXISTS", self.keys.of(family, job_id)), bool)

    def is_paused(self, queue: str) -> Call[bool]:
        return Call("read", ("SISMEMBER", self.keys.of("paused"), queue), bool)

    def completed_since(self, queue: str, since_ms: int) -> Call[tuple[int, int]]:
        """How many of those that are kept completed since then, and when the first of them did (ms); 0, 0 for none."""
        key = self.keys.of("done", queue)
        args = ("ZRANGEBYSCORE", key, since_ms, "+inf", "WITHSCORES")
        return Call("read", args, lambda r: (len(found := _scored(r)), int(found[0][1]) if found else 0))

    def is_lasting(self, family: str, name: str) -> Call[bool]:
        """Whether a key is there and does not end by itself."""
        return Call("read", ("PTTL", self.keys.of(family, name)), lambda r: r == -1)

    def scan(self, pattern_family: str, cursor: int, count: int) -> Call[tuple[int, list[str]]]:
        """One page of a family's keys, for the deep check."""
        pattern = glob(self.keys.prefix) + pattern_family + ":*"
        return Call("read", ("SCAN", cursor, "MATCH", pattern, "COUNT", count), lambda r: (int(r[0]), texts(r[1])))


def _by_name(flat: Sequence[bytes] | dict[bytes, bytes]) -> dict[str, bytes]:
    if isinstance(flat, dict):
        return {text(name): value for name, value in flat.items()}
    return {text(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}


def _printable(lines: Sequence[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]


def _scored(reply: Any) -> list[tuple[str, float]]:
    if reply and isinstance(reply[0], (list, tuple)):  # RESP3, or redis-py's own pairing
        return [(text(member), float(score)) for member, score in reply]
    return [(text(reply[i]), float(reply[i + 1])) for i in range(0, len(reply), 2)]
