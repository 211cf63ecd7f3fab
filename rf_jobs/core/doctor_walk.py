"""``deep_check``: a bounded, read-only walk over every job, for `rf-jobs doctor --deep` and the chaos tests.

What must hold: *conservation*, the ledger accounts for every job of a queue; *exclusivity*, a job stands in exactly one
structure and its meta agrees; no *ghosts*, every id that stands somewhere has an envelope and every envelope's id
stands somewhere; no *leaks*, no key outlives what it belongs to; *tokens*, a running job has one.

The store lives while the walk goes on. So whatever looks wrong in passing is a mere suspicion: it is looked at again,
and counts only if two looks in a row find the same wrong thing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rf_jobs.core.inspector import Inspector, imbalance
from rf_jobs.store.calls import Call
from rf_jobs.store.keys import JOB_KEYS, KEYS, STATE_KEYS
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.states import State
from rf_jobs.words.timing import mono

PAGE = 250
LOOKS = 5
LOOK_PAUSE = 0.1
KEYS_PER_JOB = 8
"""So many keys are walked for each job of the limit: its own (see ``JOB_KEYS``) and one for the rest."""

_KEPT = JOB_KEYS[2:]
_QUEUE_FAMILIES = frozenset(STATE_KEYS.values())
_FAMILIES = frozenset(key.name.partition(":")[0] for key in KEYS)
_NOT_YET_RUN = ("ready", "scheduled", "blocked")


@dataclass(frozen=True)
class DeepReport:
    """What the walk found."""

    problems: list[str]
    """A sentence each; empty when all is well."""
    jobs: int
    """Ids that were seen standing somewhere."""
    keys: int
    """Keys that were walked over."""
    suspected: int
    """Ids that looked wrong in passing and were looked at again."""
    unsettled: int
    """Of these, how many looked wrong each time but never twice the same: they move too fast to judge."""
    complete: bool
    """False where the limit ended the walk: what was not walked over was not checked."""
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


@dataclass(frozen=True)
class Standing:
    """All that the store holds of one id, at one look."""

    id: str
    places: tuple[tuple[str, str], ...] = ()
    """(state, queue) of each structure it stands in."""
    has_envelope: bool = False
    meta: Mapping[str, str] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    """Families of its other keys: errors, timeline, result, progress, checkpoint."""


def judge(job: Standing) -> list[str]:
    """What is wrong with it, a sentence each. A job of which nothing is left is in order."""
    where = ", ".join(f"{state} on {queue!r}" for state, queue in job.places)
    if not job.places:
        if job.has_envelope:
            state = job.meta.get("state", "nothing")
            return [f"job {job.id} has an envelope but stands nowhere (its meta says {state}): it will never run"]
        left = [*(["meta"] if job.meta else []), *job.kept]
        return [f"job {job.id} is gone, but these keys of it are left: {', '.join(left)}"] if left else []
    if len(job.places) > 1:
        return [f"job {job.id} stands in {len(job.places)} structures: {where}"]
    wrong = [] if job.has_envelope else [f"job {job.id} is a ghost: it is {where} and has no envelope"]
    return wrong + _disagreements(job, *next(iter(job.places)))


def _disagreements(job: Standing, state: str, queue: str) -> list[str]:
    """Where the meta and the structure say different things."""
    meta, wrong = job.meta, []
    said, token = meta.get("state", ""), meta.get("token", "")
    if said != state and not (said == "" and state in _NOT_YET_RUN):
        wrong.append(f"job {job.id} is {state} on {queue!r}, but its meta says {said or 'nothing'}")
    if meta.get("queue", queue) != queue:
        wrong.append(f"job {job.id} is {state} on {queue!r}, but its meta says queue {meta['queue']!r}")
    if state == State.RUNNING:
        missing = [name for name in ("token", "epoch", "score") if not meta.get(name)]
        if missing or token.startswith("!"):
            wrong.append(
                f"job {job.id} runs on {queue!r} without {', '.join(missing) or 'a token that is not used up'}"
            )
    elif token and not token.startswith("!"):
        wrong.append(f"job {job.id} is {state} on {queue!r} and its token {token} was not used up")
    if State(state).is_final and not meta.get("finished"):
        wrong.append(f"job {job.id} is {state} on {queue!r} without the time at which it ended")
    if "result" in job.kept and state != State.COMPLETED:
        wrong.append(f"job {job.id} is {state} on {queue!r} and has a result")
    return wrong


async def deep_check(store: AsyncStore, *, limit: int = 1_000_000, keys_per_second: int = 50_000) -> DeepReport:
    """Walk over the store and report what breaks its invariants. Reads only.

    At most ``limit`` jobs (and their keys) are walked over, at most ``keys_per_second``, in pages of a few hundred, so
    that a busy server does not feel it. Memory: about 200 bytes for each job. Raises ``BackendError``.
    """
    return await _Walk(store, limit, keys_per_second).run()


class _Walk:
    """One walk. Starts and ends with ``run``; keeps the ids it saw."""

    def __init__(self, store: AsyncStore, limit: int, keys_per_second: int) -> None:
        self._store = store
        self._commands = store.commands
        self._inspector = Inspector(store)
        self._limit = limit
        self._rate = keys_per_second
        self._began = mono()
        self._spent = 0
        self._queues: list[str] = []
        self._seen: dict[str, tuple[str, str]] = {}
        self._suspects: dict[str, set[str]] = {}
        """Ids that look wrong, with the queues where they were seen."""
        self._all_suspects = 0
        self._problems: list[str] = []
        self._unsettled = 0
        self._keys = 0
        self._complete = True

    async def run(self) -> DeepReport:
        """Walk over the structures, then over the keys."""
        survey = await self._inspector.survey()
        self._queues = [queue.name for queue in survey.queues]
        for queue in survey.queues:  # one script, one instant: no need to look again
            missed = imbalance(queue)
            if missed:
                self._problems.append(f"queue {queue.name!r}: the ledger and the jobs disagree by {missed}")
        for name in self._queues:
            for state in State:
                await self._walk_structure(state, name)
        await self._confirm()
        await self._walk_keys()
        await self._confirm()
        return DeepReport(
            self._problems,
            len(self._seen),
            self._keys,
            self._all_suspects,
            self._unsettled,
            self._complete,
            mono() - self._began,
        )

    async def _pace(self, keys: int) -> None:
        """Keep to the rate."""
        self._spent += keys
        ahead = self._spent / self._rate - (mono() - self._began)
        if ahead > 0:
            await asyncio.sleep(ahead)

    # --- over the structures -------------------------------------------------------------------------------------

    async def _walk_structure(self, state: State, queue: str) -> None:
        offset = 0
        while len(self._seen) < self._limit:
            page = await self._store.run(self._commands.range(state, queue, offset, PAGE))
            ids = [job_id for job_id, _ in page]
            await self._pass(ids, state, queue)
            await self._pace(2 * len(ids))
            offset += PAGE
            if len(page) < PAGE:
                return
        if offset < await self._store.run(self._commands.count(state, queue)):
            self._complete = False

    async def _pass(self, ids: list[str], state: State, queue: str) -> None:
        """A page of ids that stand in one place: note them, suspect what does not look right."""
        if not ids:
            return
        commands = self._commands
        calls: list[Call[Any]] = []
        for job_id in ids:
            calls += (commands.exists("job", job_id), commands.meta(job_id))
        replies = await self._store.run_many(calls)
        for at, job_id in enumerate(ids):
            place = (state.value, queue)
            before = self._seen.setdefault(job_id, place)
            if before != place:
                self._suspect(job_id, before[1], queue)
            elif judge(Standing(job_id, (place,), replies[2 * at], replies[2 * at + 1])):
                self._suspect(job_id, queue)

    def _suspect(self, job_id: str, *queues: str) -> None:
        self._suspects.setdefault(job_id, set()).update(queues)

    # --- over the keys -------------------------------------------------------------------------------------------

    async def _walk_keys(self) -> None:
        strays: set[str] = set()
        workers: set[str] = set()
        for shard in range(len(self._store.shards)):
            await self._walk_shard(shard, strays, workers)
        if strays:
            strays.difference_update(await self._inspector.queue_names())
            self._problems += [f"queue {name!r} has jobs and is not in the set of queues" for name in sorted(strays)]
        await self._check_workers(workers)

    async def _walk_shard(self, shard: int, strays: set[str], workers: set[str]) -> None:
        cursor, walked = 0, 0
        while True:
            cursor, keys = await self._store.run(self._commands.scan("*", cursor, PAGE, shard))
            self._keys += len(keys)
            for key in keys:
                self._pass_key(key, shard, strays, workers)
            if len(self._suspects) > 4 * PAGE:
                await self._confirm()
            walked += PAGE  # what the server stepped over, foreign keys too
            await self._pace(PAGE)
            if cursor == 0:
                break
            if walked >= self._limit * KEYS_PER_JOB:
                self._complete = False
                break

    def _pass_key(self, key: str, shard: int, strays: set[str], workers: set[str]) -> None:
        shards = self._store.shards
        family, _, member = key.removeprefix(shards.keys[shard].prefix).partition(":")
        if family in JOB_KEYS:
            place = self._seen.get(member)
            if place is None:
                self._suspect(member)
            elif family == "result" and place[0] != State.COMPLETED:
                self._suspect(member, place[1])
        elif family in _QUEUE_FAMILIES:
            if shards.of(member) != shard:
                self._problems.append(
                    f"{key!r} is in shard {shard}, and by the settings queue {member!r} is in shard {shards.of(member)}: nobody looks here"
                )
            elif member not in self._queues:
                strays.add(member)
        elif family == "worker":
            workers.add(member)
        elif family not in _FAMILIES:
            self._problems.append(f"the key {key!r} belongs to nothing that this version knows")

    async def _check_workers(self, ids: Collection[str]) -> None:
        """A worker's hash ends by itself some time after its last sign of life; one that won't must be a live worker's."""
        suspects = await self._silent(ids)
        if suspects:
            await asyncio.sleep(3 * LOOK_PAUSE)
            for worker in sorted(await self._silent(suspects)):
                self._problems.append(f"the key worker:{worker} belongs to no live worker and will never go away")

    async def _silent(self, ids: Collection[str]) -> set[str]:
        if not ids:
            return set()
        listed, *lasting = await self._store.run_many(
            [self._commands.workers(), *(self._commands.is_lasting("worker", w) for w in ids)]
        )
        alive = {worker for worker, _ in listed}
        return {w for w, lasts in zip(ids, lasting, strict=True) if lasts and w not in alive}

    # --- looking again -------------------------------------------------------------------------------------------

    async def _confirm(self) -> None:
        """Judge the suspects by two equal looks in a row."""
        suspects, self._suspects = self._suspects, {}
        self._all_suspects += len(suspects)
        ids = sorted(suspects)
        for start in range(0, len(ids), PAGE):
            await self._settle({job_id: suspects[job_id] for job_id in ids[start : start + PAGE]})

    async def _settle(self, suspects: dict[str, set[str]]) -> None:
        wrong = {job.id: job for job in await self._look(suspects) if judge(job)}
        for number in range(1, LOOKS):
            if not wrong:
                return
            await asyncio.sleep(LOOK_PAUSE * number)
            again = await self._look({job_id: suspects[job_id] for job_id in wrong})
            moving = {}
            for job in again:
                verdict = judge(job)
                if verdict and job == wrong[job.id]:
                    self._problems += verdict
                elif verdict:
                    moving[job.id] = job
            wrong = moving
        self._unsettled += len(wrong)

    async def _look(self, suspects: Mapping[str, Iterable[str]]) -> list[Standing]:
        """All that the store holds of these ids."""
        commands, ids = self._commands, list(suspects)
        width = 2 + len(_KEPT)
        calls: list[Call[Any]] = []
        for job_id in ids:
            calls += (commands.meta(job_id), commands.exists("job", job_id))
            calls += (commands.exists(family, job_id) for family in _KEPT)
        replies = await self._store.run_many(calls)
        facts = {job_id: replies[at * width : (at + 1) * width] for at, job_id in enumerate(ids)}
        queues = await self._queues_of(
            {job_id: {*suspects[job_id], *_named(facts[job_id][0])} for job_id in ids}, facts
        )
        places = await self._places(queues)
        await self._pace(len(calls))
        return [
            Standing(
                job_id, places[job_id], facts[job_id][1], facts[job_id][0],
                tuple(family for family, there in zip(_KEPT, facts[job_id][2:], strict=True) if there),
            )
            for job_id in ids
        ]  # fmt: skip

    async def _queues_of(self, known: dict[str, set[str]], facts: dict[str, list[Any]]) -> dict[str, list[str]]:
        """Where each id may stand: where it was seen, where its meta or its envelope says; everywhere if none does."""
        unknown = [job_id for job_id, queues in known.items() if not queues and facts[job_id][1]]
        for job_id, letter in (await self._inspector.envelopes(unknown)).items():
            if letter is not None:
                known[job_id].add(letter.queue)
        return {job_id: sorted(queues) or self._queues for job_id, queues in known.items()}

    async def _places(self, queues: Mapping[str, list[str]]) -> dict[str, tuple[tuple[str, str], ...]]:
        asked = [(job_id, state, queue) for job_id, names in queues.items() for queue in names for state in State]
        found: dict[str, list[tuple[str, str]]] = {job_id: [] for job_id in queues}
        for start in range(0, len(asked), 10 * PAGE):
            part = asked[start : start + 10 * PAGE]
            scores = await self._store.run_many(
                [self._commands.score(state, queue, job_id) for job_id, state, queue in part]
            )
            for (job_id, state, queue), score in zip(part, scores, strict=True):
                if score is not None:
                    found[job_id].append((state.value, queue))
            await self._pace(len(part))
        return {job_id: tuple(places) for job_id, places in found.items()}


def _named(meta: Mapping[str, str]) -> list[str]:
    return [meta["queue"]] if meta.get("queue") else []
