"""Which job classes stand in the queues, by a walk in bounded pages. Reads only.

A queue moves while it is walked over, so each set is read from its end to its front: what workers take from the front can't
make the walk miss what stands behind. Counts are those of the moment in which each page was read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rf_jobs.core.records import clip
from rf_jobs.model import envelope
from rf_jobs.model.envelope import Envelope
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.states import State

PAGE = 100
SAMPLE = 1_000


class Found(NamedTuple):
    """One job."""

    id: str
    data: bytes
    letter: Envelope | None
    """None where it can't be read."""


Judge = Callable[[Sequence[Found]], Awaitable[list[str]]]
"""Says of each what is wrong with it; '' for nothing."""


@dataclass
class Group:
    """Jobs of one queue, class and version that fare alike."""

    queue: str
    job_class: str
    """The name in their envelopes; '' where these can't be read."""
    version: int
    verdict: str
    """What is wrong with them; '' where nothing is."""
    counts: dict[str, int] = field(default_factory=dict)
    """By state."""
    example: str = ""
    """The id of one of them."""

    @property
    def jobs(self) -> int:
        """How many there are."""
        return sum(self.counts.values())


@dataclass
class Census:
    """What was found."""

    groups: list[Group]
    seen: int
    """Jobs that were looked at."""
    standing: int
    """Jobs that stood there."""

    @property
    def complete(self) -> bool:
        """Whether every job was looked at."""
        return self.seen >= self.standing


async def take(
    store: AsyncStore, queues: Iterable[str], states: Sequence[State], judge: Judge, *, sample: int | None = SAMPLE,
    seen: Callable[[int, int], None] | None = None,
) -> Census:  # fmt: skip
    """Walk over the jobs of these queues. ``sample``: at most so many of each queue and state, spread evenly over it; None:
    all. ``seen`` hears of how many were looked at, and of how many there are to look at. Raises ``BackendError``."""
    places = [(queue, state) for queue in queues for state in states]
    counts = await store.run_many([store.commands.count(state, queue) for queue, state in places]) if places else []
    todo = sum(count if sample is None else min(count, sample) for count in counts)
    groups: dict[tuple[str, str, int, str], Group] = {}
    done = 0
    for (queue, state), count in zip(places, counts, strict=True):
        async for page in _pages(store, queue, state, count, sample):
            for job, verdict in zip(page, await judge(page), strict=True):
                _add(groups, queue, state, job, verdict)
            done += len(page)
            if seen is not None:
                seen(min(done, todo), todo)
    order = sorted(groups.values(), key=lambda group: (group.queue, group.job_class, group.version, group.verdict))
    return Census(order, done, sum(counts))


def _add(groups: dict[tuple[str, str, int, str], Group], queue: str, state: State, job: Found, verdict: str) -> None:
    letter = job.letter
    name, version = (letter.job, letter.ver) if letter is not None else ("", 0)
    key = (queue, name, version, verdict)
    group = groups.get(key)
    if group is None:
        group = groups[key] = Group(queue, name, version, verdict, {}, job.id)
    group.counts[state.value] = group.counts.get(state.value, 0) + 1


async def _pages(
    store: AsyncStore, queue: str, state: State, count: int, sample: int | None
) -> AsyncIterator[list[Found]]:
    """Those that went away meanwhile are left out."""
    for offset in _offsets(count, sample):
        listed = await store.run(store.commands.range(state, queue, offset, PAGE))
        ids = [job_id for job_id, _ in listed]
        if ids:
            found = await store.run(store.commands.envelopes(ids))
            yield [Found(each, data, envelope.readable(data)) for each, data in zip(ids, found, strict=True) if data]


def _offsets(count: int, sample: int | None) -> list[int]:
    """Where pages begin, the last first: all of them, or as many as the sample takes, the first and the last among them."""
    pages = -(-count // PAGE)
    if sample is None or count <= sample:
        return [number * PAGE for number in reversed(range(pages))]
    wanted = max(2, sample // PAGE)
    last = max(0, count - PAGE)
    return sorted({round(number * last / (wanted - 1)) for number in range(wanted)}, reverse=True)


async def parked(store: AsyncStore, queues: Iterable[str], *, sample: int | None = SAMPLE) -> Census:
    """Which classes are parked, and why: the verdict is the reason that the worker gave. Raises ``BackendError``."""

    async def reasons(page: Sequence[Found]) -> list[str]:
        metas = await store.run_many([store.commands.meta(job.id) for job in page])
        return [clip(meta.get("reason", "")) for meta in metas]

    return await take(store, queues, (State.PARKED,), reasons, sample=sample)
