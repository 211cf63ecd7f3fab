"""The plain reads of the store, as ``Call``s: what needs no script.

A queue tells in which shard it is. What is asked by a job's id alone is asked of all shards, and one answers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.keys import STATE_KEYS, Keys, Shards, glob
from rf_jobs.words.states import State

T = TypeVar("T")


class Reads:
    """Makes calls for one namespace."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards
        self.keys = shards.keys[0]
        """Of the first shard, which has what concerns no queue."""

    # --- where ---------------------------------------------------------------------------------------------------

    def everywhere(self, make: Callable[[Keys, int], Call[T]], merge: Callable[[list[T]], T]) -> Call[T]:
        """A call that is made of one in each shard."""
        parts = tuple(make(keys, number) for number, keys in enumerate(self.shards.keys))
        return parts[0] if len(parts) == 1 else Call(parts[0].op, (), merge, parts=parts)

    def in_queue(self, queue: str) -> tuple[Keys, int]:
        """The keys of a queue's shard, and its number."""
        number = self.shards.of(queue)
        return self.shards.keys[number], number

    def by_id(
        self, command: Callable[[Keys], Sequence[Arg]], read: Callable[[Any], T], found: Callable[[T], object] = bool,
        queue: str | None = None,
    ) -> Call[T]:  # fmt: skip
        """A plain command about one job or batch, in its queue's shard; where its queue is not known, the first answer of all
        shards in which there is something."""
        if queue is not None:
            keys, number = self.in_queue(queue)
            return Call("read", command(keys), read, shard=number)

        def merge(answers: list[T]) -> T:
            return next((answer for answer in answers if found(answer)), answers[0])

        return self.everywhere(lambda keys, number: Call("read", command(keys), read, shard=number), merge)

    # --- a queue's -----------------------------------------------------------------------------------------------

    def _of_queue(self, queue: str, state: State, command: str, *args: Arg, read: Callable[[Any], T]) -> Call[T]:
        keys, number = self.in_queue(queue)
        return Call("read", (command, keys.of(STATE_KEYS[state], queue), *args), read, shard=number)

    def range(
        self, state: State, queue: str, offset: int, limit: int, *, newest_first: bool = False
    ) -> Call[list[tuple[str, float]]]:
        """Ids of a queue's state with their scores."""
        how = ("REV", "WITHSCORES") if newest_first else ("WITHSCORES",)
        return self._of_queue(queue, state, "ZRANGE", offset, offset + limit - 1, *how, read=_scored)

    def due_before(self, state: State, queue: str, before_ms: int, limit: int) -> Call[list[str]]:
        """Ids of a queue's state whose score lies before a time."""
        return self._of_queue(queue, state, "ZRANGEBYSCORE", "-inf", before_ms, "LIMIT", 0, limit, read=texts)

    def count(self, state: State, queue: str) -> Call[int]:
        return self._of_queue(queue, state, "ZCARD", read=int)

    def position(self, state: State, queue: str, job_id: str) -> Call[int | None]:
        """The job's rank in a queue's state, None where it is not there."""
        return self._of_queue(queue, state, "ZRANK", job_id, read=lambda r: r)

    def score(self, state: State, queue: str, job_id: str) -> Call[float | None]:
        return self._of_queue(queue, state, "ZSCORE", job_id, read=lambda r: None if r is None else float(r))

    def is_paused(self, queue: str) -> Call[bool]:
        keys, number = self.in_queue(queue)
        return Call("read", ("SISMEMBER", keys.of("paused"), queue), bool, shard=number)

    def completed_since(self, queue: str, since_ms: int) -> Call[tuple[int, int]]:
        """How many of those that are kept completed since then, and when the first of them did (ms); 0, 0 for none."""

        def read(reply: Any) -> tuple[int, int]:
            found = _scored(reply)
            return len(found), int(found[0][1]) if found else 0

        return self._of_queue(queue, State.COMPLETED, "ZRANGEBYSCORE", since_ms, "+inf", "WITHSCORES", read=read)

    # --- a job's -------------------------------------------------------------------------------------------------

    def envelopes(self, ids: Sequence[str]) -> Call[list[bytes | None]]:
        def make(keys: Keys, number: int) -> Call[list[bytes | None]]:
            return Call("read", ("MGET", *(keys.of("job", job_id) for job_id in ids)), list, shard=number)

        def merge(answers: list[list[bytes | None]]) -> list[bytes | None]:
            return [next((data for data in found if data is not None), None) for found in zip(*answers, strict=True)]

        return self.everywhere(make, merge)

    def meta(self, job_id: str) -> Call[dict[str, str]]:
        return self.by_id(lambda keys: ("HGETALL", keys.of("meta", job_id)), pairs)

    def kept(self, family: str, job_id: str, queue: str | None = None) -> Call[bytes | None]:
        """A job's result, progress or checkpoint."""
        return self.by_id(lambda keys: ("GET", keys.of(family, job_id)), lambda r: r, lambda r: r is not None, queue)

    def lines(self, family: str, job_id: str) -> Call[list[bytes]]:
        """A job's errors or timeline."""
        return self.by_id(lambda keys: ("LRANGE", keys.of(family, job_id), 0, -1), list)

    def last_lines(self, family: str, job_id: str, count: int) -> Call[list[bytes]]:
        """The last of a job's errors."""
        return self.by_id(lambda keys: ("LRANGE", keys.of(family, job_id), -count, -1), list)

    def steps(self, job_id: str, queue: str) -> Call[dict[str, bytes]]:
        """What a job's done steps answered with, by their names."""
        return self.by_id(lambda keys: ("HGETALL", keys.of("steps", job_id)), _by_name, queue=queue)

    def exists(self, family: str, job_id: str) -> Call[bool]:
        return self.by_id(lambda keys: ("EXISTS", keys.of(family, job_id)), bool)

    def is_lasting(self, family: str, name: str) -> Call[bool]:
        """Whether a key is there and does not end by itself."""
        return self.by_id(lambda keys: ("PTTL", keys.of(family, name)), lambda r: r == -1)

    def homes(self, family: str, ids: Sequence[str]) -> Call[list[int | None]]:
        """In which shard each job, or batch, of these is; None where it is in none."""
        parts = tuple(
            Call("read", ("EXISTS", keys.of(family, each)), bool, shard=number)
            for each in ids
            for number, keys in enumerate(self.shards.keys)
        )

        def merge(found: list[bool]) -> list[int | None]:
            each = len(self.shards)
            rows = [found[at : at + each] for at in range(0, len(found), each)]
            return [row.index(True) if True in row else None for row in rows]

        return Call("read", (), merge, parts=parts)

    # --- all of a namespace --------------------------------------------------------------------------------------

    def workers(self) -> Call[list[tuple[str, float]]]:
        """Ids of workers, with the time until which each is believed alive (ms)."""

        def merge(answers: list[list[tuple[str, float]]]) -> list[tuple[str, float]]:
            until: dict[str, float] = {}
            for worker, believed in (row for answer in answers for row in answer):
                until[worker] = max(believed, until.get(worker, 0.0))
            return sorted(until.items(), key=lambda row: row[1])

        return self.everywhere(
            lambda keys, number: Call(
                "read", ("ZRANGE", keys.of("workers"), 0, -1, "WITHSCORES"), _scored, shard=number
            ),
            merge,
        )

    def worker(self, worker: str) -> Call[dict[str, str]]:
        """A worker's facts: the newest, should it have left some behind in a shard."""
        return self.everywhere(
            lambda keys, number: Call("read", ("HGETALL", keys.of("worker", worker)), pairs, shard=number),
            lambda answers: max(answers, key=lambda facts: facts.get("beat", "").zfill(20)),
        )

    def queues(self) -> Call[list[str]]:
        return self.everywhere(
            lambda keys, number: Call("read", ("SMEMBERS", keys.of("queues")), _sorted, shard=number),
            lambda answers: sorted({queue for answer in answers for queue in answer}),
        )

    def unsettled(self) -> Call[int]:
        """How many consequences of what has happened are still to be drawn."""
        return Call("read", (), sum, parts=tuple(self._unsettled()))

    def _unsettled(self) -> list[Call[int]]:
        calls: list[Call[int]] = []
        for number, keys in enumerate(self.shards.keys):
            calls.append(Call("read", ("LLEN", keys.of("outbox")), int, shard=number))
            others = (str(other) for other in range(len(self.shards)) if other != number)
            calls += [Call("read", ("XLEN", keys.of("outbox", other)), int, shard=number) for other in others]
        return calls

    def skipped(self) -> Call[list[str]]:
        """Consequences that could not be drawn, each with the time (ms) and why; the oldest first."""
        return self.everywhere(
            lambda keys, number: Call(
                "read", ("LRANGE", keys.of("outbox", "skipped"), 0, -1), _printable, shard=number
            ),
            lambda answers: sorted(line for answer in answers for line in answer),
        )

    def skipped_count(self) -> Call[int]:
        """How many of them are kept."""
        return self.everywhere(
            lambda keys, number: Call("read", ("LLEN", keys.of("outbox", "skipped")), int, shard=number), sum
        )

    def listed(
        self, family: str, which: str, offset: int, limit: int, *, newest_first: bool = False
    ) -> Call[list[str]]:
        """A page of a sorted set that each shard has a part of."""
        command = "ZREVRANGE" if newest_first else "ZRANGE"
        if len(self.shards) == 1:
            return Call("read", (command, self.keys.of(family, which), offset, offset + limit - 1), texts)

        def merge(answers: list[list[tuple[str, float]]]) -> list[str]:
            rows = sorted((row for answer in answers for row in answer), key=lambda row: row[1], reverse=newest_first)
            return [name for name, _ in rows[offset : offset + limit]]

        parts = tuple(
            Call("read", (command, keys.of(family, which), 0, offset + limit - 1, "WITHSCORES"), _scored, shard=number)
            for number, keys in enumerate(self.shards.keys)
        )
        return Call("read", (), merge, parts=parts)

    def scan(self, pattern_family: str, cursor: int, count: int, shard: int = 0) -> Call[tuple[int, list[str]]]:
        """One page of a family's keys in a shard, for the deep check."""
        pattern = glob(self.shards.keys[shard].prefix) + pattern_family + ":*"
        args = ("SCAN", cursor, "MATCH", pattern, "COUNT", count)
        return Call("read", args, lambda r: (int(r[0]), texts(r[1])), shard=shard)

    # --- what is in the first shard ------------------------------------------------------------------------------

    def metrics(self) -> Call[dict[str, str]]:
        return Call("read", ("HGETALL", self.keys.of("metrics")), pairs)

    def exemplars(self) -> Call[dict[str, str]]:
        return Call("read", ("HGETALL", self.keys.of("exemplars")), pairs)

    def info(self, shard: int = 0) -> Call[Any]:
        """What the server of a shard says of itself."""
        return Call("read", ("INFO",), lambda r: r, shard=shard)

    def time(self) -> Call[int]:
        """The server's clock, in ms, as the scripts see it."""
        return Call("read", (), int, "time")

    def travel(self, clock: str, *, leases_end: bool) -> Call[int]:
        """For tests: move the clock that scripts see, where they were told to look (``scripts.tell_time_by``). ``clock``:
        '+<ms>' or '-<ms>' beside the server's own, '=<ms>' stands still, '' is the server's own. Answers with its time (ms)."""
        args = (clock, int(leases_end))
        return self.everywhere(lambda _, number: Call("admin", args, int, "travel", shard=number), max)

    def ping(self) -> Call[bool]:
        return self.everywhere(lambda _, number: Call("read", ("PING",), bool, shard=number), all)


def _by_name(flat: Sequence[bytes] | dict[bytes, bytes]) -> dict[str, bytes]:
    if isinstance(flat, dict):
        return {text(name): value for name, value in flat.items()}
    return {text(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}


def _sorted(names: Any) -> list[str]:
    return sorted(texts(list(names)))


def _printable(lines: Sequence[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]


def _scored(reply: Any) -> list[tuple[str, float]]:
    if reply and isinstance(reply[0], (list, tuple)):  # RESP3, or redis-py's own pairing
        return [(text(member), float(score)) for member, score in reply]
    return [(text(reply[i]), float(reply[i + 1])) for i in range(0, len(reply), 2)]
