"""The scripts, as ``Call``s: one function for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.keys import SCHEMA_VERSION, STATE_KEYS, Shards
from rf_jobs.store.reads import Reads
from rf_jobs.store.shapes import (
    Beaten,
    Draft,
    Ending,
    Fetched,
    Greeting,
    Reclaimed,
    Report,
    Retention,
    Survey,
    read_fetched,
    read_survey,
    score_ms,
)
from rf_jobs.words.states import State

T = TypeVar("T")
ABANDONED_MS = 900_000
"""A batch whose dispatch has taken so long is taken for abandoned."""
_FATES = (State.READY, State.DEAD, State.CANCELLED)
"""What becomes of a job that is taken back, by the number that reclaim.lua answers with."""


class Commands(Reads):
    """Makes calls for one namespace: these run a script, those of ``Reads`` a plain command."""

    def __init__(self, shards: Shards) -> None:
        super().__init__(shards)
        self.retention = Retention()
        """How jobs are kept that end by what happens to others; ``retention`` of a call is of those that it ends itself."""

    def hello(self, instance: str) -> Call[Greeting]:
        """Have the store answer with what it is."""

        def make(number: int) -> Call[Greeting]:
            def read(r: Any) -> Greeting:
                return Greeting(int(r[0]), text(r[1]), ((int(r[2]), int(r[3])),))

            return Call("admin", (SCHEMA_VERSION, instance, len(self.shards), number), read, "hello", shard=number)

        def merge(answers: list[Greeting]) -> Greeting:
            schemas, instances, parts = zip(*answers, strict=True)
            return Greeting(max(schemas), "-".join(instances), tuple(part for (part,) in parts))

        return self.everywhere(lambda _, number: make(number), merge)

    def split(
        self, items: Sequence[Any], queue: Callable[[Any], str], make: Callable[[list[Any], int], Call[T]],
        merge: Callable[[list[tuple[list[int], T]]], T],
    ) -> Call[T]:  # fmt: skip
        """A call about many, each in its queue's shard. ``merge`` gets what each part answers, with the positions of those that
        it is about."""
        if len(self.shards) == 1 or not items:
            return make(list(items), 0)
        places: dict[int, list[int]] = {}
        for at, item in enumerate(items):
            places.setdefault(self.shards.of(queue(item)), []).append(at)
        parts = tuple(make([items[at] for at in places[number]], number) for number in places)
        return (
            parts[0]
            if len(parts) == 1
            else Call(
                parts[0].op, (), lambda answers: merge(list(zip(places.values(), answers, strict=True))), parts=parts
            )
        )

    def enqueue(self, drafts: Sequence[Draft]) -> Call[dict[int, tuple[str, str]]]:
        """Answers with what is to be said of some, by their positions (0-based, in ``drafts``): code and detail, see
        enqueue.lua."""

        def merge(answers: list[tuple[list[int], dict[int, tuple[str, str]]]]) -> dict[int, tuple[str, str]]:
            return {places[at]: said for places, answer in answers for at, said in answer.items()}

        return self.split(drafts, lambda draft: draft.queue, self._enqueue, merge)

    def _enqueue(self, drafts: Sequence[Draft], shard: int) -> Call[dict[int, tuple[str, str]]]:
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

        return Call("dispatch", args, read, "enqueue", 2, shard)

    def fetch(
        self, worker: str, nonce: int, wanted: int, lease_ms: int, queues: Sequence[str], ageing_ms: int = 0
    ) -> Call[Fetched]:
        """All queues must be of one shard."""
        args: tuple[Arg, ...] = (worker, nonce, wanted, lease_ms, ageing_ms, *queues)
        return Call("fetch", args, lambda r: read_fetched(r, worker, nonce), "fetch", 4, self.shards.of(queues[0]))

    def finish(self, endings: Sequence[Ending], retention: Retention) -> Call[list[int]]:
        """Answers with a ``Verdict`` for each ending, in the order given."""
        return self.split(
            endings, lambda ending: ending.queue, lambda some, shard: self._finish(some, retention, shard), in_order
        )

    def _finish(self, endings: Sequence[Ending], retention: Retention, shard: int) -> Call[list[int]]:
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

        return Call("ack", args, read, "finish", 1, shard)

    def beat(
        self, worker: str, believed_ms: int, lease_ms: int, facts: dict[str, Arg], leases: Iterable[tuple[str, str, str]],
        queues: Iterable[str] = (),
    ) -> Call[Beaten]:  # fmt: skip
        """``leases``: (queue, id, token) of those to extend; ``queues``: those that the worker serves: it lives where they are."""
        first: list[Arg] = [worker, believed_ms, lease_ms, len(facts)]
        for name, value in facts.items():
            first += (name, value)
        args: dict[int, list[Arg]] = {number: list(first) for number in self.shards.split(queues) or (0,)}
        for lease in leases:
            args.setdefault(self.shards.of(lease[0]), list(first)).extend(lease)

        def read(r: Any) -> Beaten:
            return Beaten(r[0], text(r[1]), texts(r[2]), texts(r[3]))

        def merge(answers: list[Beaten]) -> Beaten:
            return Beaten(
                answers[0].now_ms, "-".join(one.instance for one in answers),
                [each for one in answers for each in one.lost], [each for one in answers for each in one.stop],
            )  # fmt: skip

        parts = tuple(Call("extend", some, read, "beat", shard=number) for number, some in sorted(args.items()))
        return parts[0] if len(parts) == 1 else Call("extend", (), merge, parts=parts)

    def reclaim(
        self, limit: int, max_crashes: int, retention: Retention, error: bytes, queues: Sequence[str]
    ) -> Call[list[Reclaimed]]:
        """``limit`` is for each shard."""

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

        def make(some: Sequence[str], shard: int) -> Call[list[Reclaimed]]:
            return Call("reclaim", (limit, max_crashes, *retention.args(), error, *some), read, "reclaim", 1, shard)

        return self.split(queues, str, make, lambda answers: [each for _, taken in answers for each in taken])

    def cancel(self, job_id: str, queue: str, reason: str, retention: Retention) -> Call[tuple[str, bool]]:
        args = (job_id, queue, reason, *retention.args())
        return Call("admin", args, lambda r: (text(r[0]), bool(r[1])), "cancel", 2, self.shards.of(queue))

    def revive(self, queue: str, ids: Sequence[str]) -> Call[list[str]]:
        return Call("admin", (queue, *self.retention.args(), *ids), _first, "revive", 1, self.shards.of(queue))

    def forget(self, queue: str, ids: Sequence[str]) -> Call[list[str]]:
        return Call("admin", (queue, *ids), texts, "forget", shard=self.shards.of(queue))

    def clear(self, queue: str, state: State, limit: int) -> Call[list[str]]:
        args = (queue, STATE_KEYS[state], limit, *self.retention.args())
        return Call("admin", args, _first, "clear", 1, self.shards.of(queue))

    def unpark(self, queue: str, ids: Sequence[str]) -> Call[list[str]]:
        return Call("admin", (queue, *ids), texts, "unpark", shard=self.shards.of(queue))

    def bury_parked(
        self, queue: str, older_ms: int, limit: int, retention: Retention, unknown: bytes, closed: bytes
    ) -> Call[list[tuple[str, str]]]:
        """Answers with ids and reasons; ``unknown`` and ``closed`` are the errors of those whose class nobody knew, and of
        those that nobody could open."""
        args = (queue, older_ms, limit, *retention.args(), unknown, closed)
        return Call("reclaim", args, lambda r: list(pairs(r[0]).items()), "bury_parked", 1, self.shards.of(queue))

    def settle(self) -> Call[None]:
        """Do what earlier scripts left in the outbox; end batches whose dispatch nobody has completed."""
        args = (*self.retention.args(), ABANDONED_MS)
        return self.everywhere(
            lambda _, number: Call("admin", args, lambda _: None, "settle", 0, number), lambda _: None
        )

    def move(self, job_id: str, queue: str, what: str, value: str) -> Call[tuple[str, bool]]:
        """Another ``priority`` or ``due`` time. Answers with the state it was in and whether that was done."""
        return Call(
            "admin",
            (job_id, queue, what, value),
            lambda r: (text(r[0]), bool(r[1])),
            "move",
            shard=self.shards.of(queue),
        )

    def pause(self, queue: str, on: bool) -> Call[bool]:
        return Call("admin", (queue, "1" if on else "0"), bool, "pause", shard=self.shards.of(queue))

    def keep(self, family: str, job_id: str, token: str, value: bytes, step: str, queue: str) -> Call[bool]:
        return Call("ack", (family, job_id, token, value, step), bool, "keep", shard=self.shards.of(queue))

    def report(self, reports: Sequence[Report], most: int, most_bytes: int) -> Call[list[int]]:
        """Answers for each with -1: its lease is not held; 0; or, where it is the first word of its having been told to
        stop, 1 + the milliseconds since it was asked to. ``most``, ``most_bytes``: of each job's log."""

        def make(some: Sequence[Report], shard: int) -> Call[list[int]]:
            args: list[Arg] = [most, most_bytes]
            for one in some:
                args += (
                    one.id,
                    one.token,
                    "1" if one.told else "",
                    one.progress,
                    one.first,
                    len(one.lines),
                    *one.lines,
                )
            return Call("ack", args, list, "report", shard=shard)

        return self.split(reports, lambda one: one.queue, make, in_order)

    def joblog(self, job_id: str, after: int, limit: int) -> Call[tuple[int, list[bytes]]]:
        """Lines of a job's log behind line ``after``; the number of the first of them, and they."""
        args = (job_id, after, limit)
        return self.everywhere(
            lambda _, number: Call("read", args, lambda r: (int(r[0]), list(r[1])), "joblog", shard=number),
            lambda answers: next((answer for answer in answers if answer[1]), answers[0]),
        )

    def watch(self, job_id: str, live_ms: int = 0) -> Call[str]:
        """Answers with its state if it is over, '?' if it is not known, else ''. ``live_ms``: announce all its changes for
        so long, not its end alone."""
        return self.everywhere(
            lambda _, number: Call("read", (job_id, live_ms), text, "watch", shard=number),
            lambda answers: next((answer for answer in answers if answer != "?"), "?"),
        )

    def advertise(self, worker: str, digest: str, classes: bytes, seconds: float) -> Call[None]:
        """``classes``: the catalog with that digest, kept so long."""
        args = (worker, digest, classes, round(seconds * 1000))
        return self.everywhere(
            lambda _, number: Call("admin", args, lambda _: None, "advertise", shard=number), lambda _: None
        )

    def catalog(self, digest: str) -> Call[bytes | None]:
        return Call("read", ("GET", self.keys.of("classes", digest)), lambda r: r)

    def bye(self, worker: str) -> Call[None]:
        return self.everywhere(
            lambda _, number: Call("admin", (worker,), lambda _: None, "bye", shard=number), lambda _: None
        )

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
        return self.everywhere(
            lambda _, number: Call("read", (), pairs, "memory", shard=number),
            lambda answers: {queue: size for answer in answers for queue, size in answer.items()},
        )

    def survey(self) -> Call[Survey]:
        """All queues; those of one shard at one instant."""

        def merge(answers: list[Survey]) -> Survey:
            queues = sorted((queue for answer in answers for queue in answer.queues), key=lambda queue: queue.name)
            return Survey(answers[0].now_ms, "-".join(answer.instance for answer in answers), queues)

        return self.everywhere(lambda _, number: Call("read", (), read_survey, "survey", shard=number), merge)

    # --- payloads: listed in the first shard ------------------------------------------------------------------------

    def payloads_add(self, names: Sequence[str], look_ms: int) -> Call[None]:
        """Write down payloads that are about to be stored, to be looked at in so long."""
        return Call("dispatch", ("add", look_ms, *names), lambda _: None, "payloads")

    def payloads_due(self, limit: int, again_ms: int) -> Call[list[str]]:
        """Names of payloads that it is time to look at. They are due again in ``again_ms``."""
        return Call("reclaim", ("due", limit, again_ms), texts, "payloads")

    def payloads_drop(self, names: Sequence[str]) -> Call[None]:
        """Forget payloads that were removed."""
        return Call("reclaim", ("drop", *names), lambda _: None, "payloads")


def _first(reply: Sequence[Any]) -> list[str]:
    return texts(reply[0])


def in_order(answers: list[tuple[list[int], list[T]]]) -> list[T]:
    """What the parts of a ``split`` answer for each of their items, in the order of all."""
    found = {at: value for places, values in answers for at, value in zip(places, values, strict=True)}
    return [found[at] for at in range(len(found))]
