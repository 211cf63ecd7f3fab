"""Every operation on the store, as a ``Call``: one function per script, plus the plain reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.keys import JOB_KEYS, SCHEMA_VERSION, STATE_KEYS, Keys, glob
from rf_jobs.store.shapes import (
    Beaten,
    Draft,
    Ending,
    Fetched,
    Reclaimed,
    Report,
    Retention,
    Survey,
    read_fetched,
    read_survey,
    score_ms,
)
from rf_jobs.words.states import State

ABANDONED_MS = 900_000
"""A batch whose dispatch has taken so long is taken for abandoned."""
_FATES = (State.READY, State.DEAD, State.CANCELLED)
"""What becomes of a job that is taken back, by the number that reclaim.lua answers with."""


class Commands:
    """Makes calls for one namespace."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.retention = Retention()
        """How jobs are kept that end by what happens to others; ``retention`` of a call is of those that it ends itself."""

    # --- scripts -----------------------------------------------------------------------------------------------

    def hello(self, instance: str) -> Call[tuple[int, str]]:
        return Call("admin", (SCHEMA_VERSION, instance), lambda r: (int(r[0]), text(r[1])), "hello")

    def enqueue(self, drafts: Sequence[Draft]) -> Call[dict[int, tuple[str, str]]]:
        """Answers with what is to be said of some, by their positions (0-based, in ``drafts``): code and detail, see
        enqueue.lua."""
        groups: dict[tuple[str, int, str, bytes], list[int]] = {}
        for at, draft in enumerate(drafts):
            groups.setdefault((draft.queue, draft.priority, draft.when, draft.options), []).append(at)
        args: list[Arg] = self.retention.args()
        order: list[int] = []
        for (queue, priority, when, options), members in groups.items():
            args += (queue, priority, when, options, len(members))
            for at in members:
                draft = drafts[at]
                args.append(draft.id)
                args.append(draft.data)
            order += members

        def read(reply: Any) -> dict[int, tuple[str, str]]:
            said = reply[1]
            return {order[said[i] - 1]: (text(said[i + 1]), text(said[i + 2])) for i in range(0, len(said), 3)}

        return Call("dispatch", args, read, "enqueue", 2)

    def fetch(
        self, worker: str, nonce: int, wanted: int, lease_ms: int, queues: Sequence[str], ageing_ms: int = 0
    ) -> Call[Fetched]:
        args: tuple[Arg, ...] = (worker, nonce, wanted, lease_ms, ageing_ms, *queues)
        return Call("fetch", args, lambda r: read_fetched(r, worker, nonce), "fetch", 4)

    def finish(self, endings: Sequence[Ending], retention: Retention) -> Call[list[int]]:
        """Answers with a ``Verdict`` for each ending, in the order given."""
        args = retention.args()
        order: list[int] = []
        plain: dict[tuple[str, str], list[int]] = {}
        valued: dict[tuple[str, str, int], list[int]] = {}
        for at, ending in enumerate(endings):
            if ending.verb != "complete":
                args += (ending.verb, ending.queue, ending.id, ending.token, ending.number)
                args += (ending.reason, ending.data, ending.span)
                order.append(at)
            elif ending.data:
                valued.setdefault((ending.queue, ending.token, max(ending.number, 1)), []).append(at)
            else:
                plain.setdefault((ending.queue, ending.token), []).append(at)
        for (queue, token), members in plain.items():
            args += ("complete", queue, token, len(members))
            args += [endings[at].id for at in members]
            order += members
        for (queue, token, ttl), members in valued.items():
            args += ("result", queue, token, len(members), ttl)
            for at in members:
                args += (endings[at].id, endings[at].data)
            order += members

        def read(reply: Any) -> list[int]:
            verdicts = [0] * len(order)
            for at, verdict in zip(order, reply[0], strict=True):
                verdicts[at] = verdict
            return verdicts

        return Call("ack", args, read, "finish", 1)

    def beat(
        self,
        worker: str,
        believed_ms: int,
        lease_ms: int,
        facts: dict[str, Arg],
        leases: Iterable[tuple[str, str, str]],
    ) -> Call[Beaten]:
        """``leases``: (queue, id, token) of those to extend."""
        args: list[Arg] = [worker, believed_ms, lease_ms, len(facts)]
        for name, value in facts.items():
            args += (name, value)
        for lease in leases:
            args += lease
        return Call("extend", args, lambda r: Beaten(r[0], text(r[1]), texts(r[2]), texts(r[3])), "beat")

    def reclaim(
        self, limit: int, max_crashes: int, retention: Retention, error: bytes, queues: Sequence[str]
    ) -> Call[list[Reclaimed]]:
        def read(reply: Any) -> list[Reclaimed]:
            r = reply[0]
            return [
                Reclaimed(
                    text(r[i]),
                    text(r[i + 1]),
                    int(r[i + 2]),
                    _FATES[int(r[i + 3])],
                    text(r[i + 4]),
                    int(r[i + 5]),
                    max(0, int(r[i + 6]) - score_ms(r[i + 7])),
                    r[i + 8],
                )
                for i in range(0, len(r), 9)
            ]

        return Call(
            "reclaim", (limit, max_crashes, *retention.args(), error, *queues), read, "reclaim", 1
        )

    def cancel(self, job_id: str, queue: str, reason: str, retention: Retention) -> Call[tuple[str, bool]]:
        args = (job_id, queue, reason, *retention.args())
        return Call("admin", args, lambda r: (text(r[0]), bool(r[1])), "cancel", 2)

    def revive(self, queue: str, ids: Sequence[str]) -> Call[list[str]]:
        return Call("admin", (queue, *self.retention.args(), *ids), _first, "revive", 1)

    def forget(self, queue: str, ids: Sequence[str]) -> Call[list[str]]:
        return Call("admin", (queue, *ids), texts, "forget")

    def clear(self, queue: str, state: State, limit: int) -> Call[list[str]]:
        return Call("admin", (queue, STATE_KEYS[state], limit, *self.retention.args()), _first, "clear", 1)

    def unpark(self, queue: str, ids: Sequence[str]) -> Call[list[str]]:
        return Call("admin", (queue, *ids), texts, "unpark")

    def bury_parked(
        self, queue: str, older_ms: int, limit: int, retention: Retention, unknown: bytes, closed: bytes
    ) -> Call[list[tuple[str, str]]]:
        """Answers with ids and reasons; ``unknown`` and ``closed`` are the errors of those whose class nobody knew, and of
        those that nobody could open."""
        args = (queue, older_ms, limit, *retention.args(), unknown, closed)
        return Call("reclaim", args, lambda r: list(pairs(r[0]).items()), "bury_parked", 1)

    def settle(self) -> Call[None]:
        """Do what earlier scripts left in the outbox; end batches whose dispatch nobody has completed."""
        return Call("admin", (*self.retention.args(), ABANDONED_MS), lambda _: None, "settle", 0)

    def move(self, job_id: str, queue: str, what: str, value: str) -> Call[tuple[str, bool]]:
        """Another ``priority`` or ``due`` time. Answers with the state it was in and whether that was done."""
        return Call("admin", (job_id, queue, what, value), lambda r: (text(r[0]), bool(r[1])), "move", 2)

    def pause(self, queue: str, on: bool) -> Call[bool]:
        return Call("admin", (queue, "1" if on else "0"), bool, "pause")

    def keep(self, family: str, job_id: str, token: str, value: bytes, step: str = "") -> Call[bool]:
        return Call("ack", (family, job_id, token, value, step), bool, "keep")

    def report(self, reports: Sequence[Report], most: int, most_bytes: int) -> Call[list[int]]:
        """Answers for each with -1: its lease is not held; 0; or, where it is the first word of its having been told to
        stop, 1 + the milliseconds since it was asked to. ``most``, ``most_bytes``: of each job's log."""
        args: list[Arg] = [most, most_bytes]
        for one in reports:
            args += (one.id, one.token, "1" if one.told else "", one.progress, one.first, len(one.lines), *one.lines)
        return Call("ack", args, list, "report")

    def joblog(self, job_id: str, after: int, limit: int) -> Call[tuple[int, list[bytes]]]:
        """Lines of a job's log behind line ``after``; the number of the first of them, and they."""
        return Call("read", (job_id, after, limit), lambda r: (int(r[0]), list(r[1])), "joblog")

    def watch(self, job_id: str, live_ms: int = 0) -> Call[str]:
        """Answers with its state if it is over, '?' if it is not known, else ''. ``live_ms``: announce all its changes for
        so long, not its end alone."""
        return Call("read", (job_id, live_ms), text, "watch")

    def advertise(self, worker: str, digest: str, classes: bytes, seconds: float) -> Call[None]:
        """``classes``: the catalog with that digest, kept so long."""
        return Call("admin", (worker, digest, classes, round(seconds * 1000)), lambda _: None, "advertise")

    def catalog(self, digest: str) -> Call[bytes | None]:
        return Call("read", ("GET", self.keys.of("classes", digest)), lambda r: r)

    def bye(self, worker: str) -> Call[None]:
        return Call("admin", (worker,), lambda _: None, "bye")

    def flush(self, source: str, number: int, increments: dict[str, float], exemplars: dict[str, str]) -> Call[bool]:
        args: list[Arg] = [source, number, len(increments)]
        for name, value in increments.items():
            args += (name, repr(value))
        for name, exemplar in exemplars.items():
            args += (name, exemplar)
        return Call("flush", args, bool, "flush")

    def lease(self, family: str, holder: str, seconds: float) -> Call[bool]:
        """Take or renew what one process at a time has; 0 seconds give it up. Answers whether it is (or was) the holder's."""
        return Call("admin", (family, holder, round(seconds * 1000)), bool, "lease")

    def memory(self) -> Call[dict[str, str]]:
        """About how many bytes each queue takes."""
        return Call("read", (), pairs, "memory")

    def survey(self) -> Call[Survey]:
        return Call("read", (), read_survey, "survey")

    def payloads_add(self, names: Sequence[str], look_ms: int) -> Call[None]:
        """Write down payloads that are about to be stored, to be looked at in so long."""
        return Call("dispatch", ("add", look_ms, *names), lambda _: None, "payloads")

    def payloads_due(self, limit: int, again_ms: int) -> Call[list[tuple[str, bytes, str]]]:
        """Payloads that it is time to look at: name, their job's envelope, its state; empty where there is none. They are due
        again in ``again_ms``."""

        def read(reply: Any) -> list[tuple[str, bytes, str]]:
            return [(text(reply[i]), reply[i + 1], text(reply[i + 2])) for i in range(0, len(reply), 3)]

        return Call("reclaim", ("due", limit, again_ms), read, "payloads")

    def payloads_drop(self, names: Sequence[str]) -> Call[None]:
        """Forget payloads that were removed."""
        return Call("reclaim", ("drop", *names), lambda _: None, "payloads")

    # --- plain reads -------------------------------------------------------------------------------------------

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

    def job_keys(self, job_id: str) -> list[str]:
        """All keys that may belong to one job."""
        return [self.keys.of(family, job_id) for family in JOB_KEYS]


def _first(reply: Sequence[Any]) -> list[str]:
    return texts(reply[0])


def _by_name(flat: Sequence[bytes] | dict[bytes, bytes]) -> dict[str, bytes]:
    if isinstance(flat, dict):
        return {text(name): value for name, value in flat.items()}
    return {text(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}


def _scored(reply: Any) -> list[tuple[str, float]]:
    if reply and isinstance(reply[0], (list, tuple)):  # RESP3, or redis-py's own pairing
        return [(text(member), float(score)) for member, score in reply]
    return [(text(reply[i]), float(reply[i + 1])) for i in range(0, len(reply), 2)]
