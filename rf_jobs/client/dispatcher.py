"""Dispatching for one manager: what is asked for becomes drafts, and they are sent unless another job has their id."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from rf_jobs.client.dispatching import NEW, Preparer, Said
from rf_jobs.client.offload import Offload, digest_of
from rf_jobs.client.pending import Choices
from rf_jobs.client.placing import Placer
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import Dispatching, rejected
from rf_jobs.model import envelope
from rf_jobs.model.job import Job
from rf_jobs.model.jobclass import registry
from rf_jobs.model.middleware import MiddlewareStack
from rf_jobs.words.errors import BatchClosed, DuplicateJob, JobNotFound, RateLimited, RfJobsError

IDS_PER_CALL = 500
Asked = tuple[Job, Choices]


class Dispatcher:
    """Sends one job, or many. An id that the caller gave may be known already, for the same job alone: it is then his own
    call sent again. Whether it is the same is looked up only for such ids; one of our own making that is known is the
    answer to our own call, sent again."""

    def __init__(
        self, lifecycle: Lifecycle, preparer: Preparer, middleware: MiddlewareStack, offload: Offload, placer: Placer
    ) -> None:
        self._lifecycle = lifecycle
        self._offload = offload if offload.above is not None else None
        self._preparer = preparer
        self._middleware = middleware
        self._placer = placer

    async def send(self, job: Job, choices: Choices) -> UUID:
        """Dispatch one."""
        item = self._preparer.prepare(job, choices)
        if self._offload is not None:
            (item,) = await self._store_large([item], self._offload)
        if choices.id is not None and self._placer.is_needed:  # each shard would take it
            self._refuse(await self._taken([item]))
        said = await self._placer.send(item)
        if said == NEW:
            return item.id
        if said[0] == "known" and choices.id is not None:
            for _, why in await self._taken([item]):
                raise DuplicateJob(why)
        return _settled(item, choices, said)

    async def send_many(self, asked: Sequence[Asked]) -> list[UUID]:
        """Dispatch many; answers with their ids in order."""

        async def send() -> list[UUID]:
            items = [self._preparer.prepare(job, choices) for job, choices in asked]
            if self._offload is not None:
                items = await self._store_large(items, self._offload)
            given = [item for item, (_, choices) in zip(items, asked, strict=True) if choices.id is not None]
            self._refuse(await self._taken(given))
            said = await self._placer.send_all(items)
            known = {item.id for item, (code, _) in zip(items, said, strict=True) if code == "known"}
            self._admit(items, await self._taken([item for item in given if item.id in known]))
            return _all_settled(items, [choices for _, choices in asked], said)

        result: list[UUID] = await self._middleware.batch(len(asked), send)
        return result

    async def _store_large(self, items: list[Dispatching], offload: Offload) -> list[Dispatching]:
        try:
            return await offload.store_large(items)
        except RfJobsError as error:
            self._rejected(items, type(error).__name__)
            raise

    def _rejected(self, items: Sequence[Dispatching], error: str) -> None:
        for item in items:
            self._lifecycle.bus.emit(rejected(item.event, error))

    async def _taken(self, items: Sequence[Dispatching]) -> list[tuple[Dispatching, str]]:
        """Those whose id another job has, in the store or earlier among ``items``, and what to say; in one round trip."""
        if not items:
            return []
        store = self._lifecycle.store
        ids = [item.draft.id for item in items]
        chunks = [ids[at : at + IDS_PER_CALL] for at in range(0, len(ids), IDS_PER_CALL)]
        replies = await store.run_many([store.commands.envelopes(chunk) for chunk in chunks])
        holders: dict[str, bytes | None] = dict(zip(ids, (data for reply in replies for data in reply), strict=True))
        found = []
        for item in items:
            holder = holders[item.draft.id]
            if holder is None:
                holders[item.draft.id] = item.draft.data
            elif why := difference(item.draft.id, holder, item.draft.data):
                found.append((item, why))
        return found

    def _refuse(self, taken: list[tuple[Dispatching, str]]) -> None:
        """Nothing was sent yet, and nothing will be."""
        self._rejected([item for item, _ in taken], DuplicateJob.__name__)
        if taken:
            raise DuplicateJob("; ".join(why for _, why in taken) + "; nothing was enqueued")

    def _admit(self, items: Sequence[Dispatching], taken: list[tuple[Dispatching, str]]) -> None:
        """Another client took an id between the look and the sending: what is in must not be lost to the caller."""
        if taken:
            lost = {item.id for item, _ in taken}
            enqueued = ", ".join(str(item.id) for item in items if item.id not in lost) or "none"
            raise DuplicateJob("; ".join(why for _, why in taken) + f"; enqueued were: {enqueued}")


def _settled(item: Dispatching, choices: Choices, said: Said) -> UUID:
    """The id to answer with; raises where the store did not take it."""
    code, detail = said
    name = item.event.job_class
    if code == "unique":
        asked = choices.extra.unique if choices.extra is not None else None
        entry = registry.find(name)
        on_conflict = (
            asked.on_conflict if asked is not None else entry.options.on_conflict if entry is not None else "return"
        )
        if on_conflict == "raise":
            raise DuplicateJob(f"an equal {name} holds the unique lock: job {detail}; it was not enqueued")
        return UUID(detail)
    if code == "no_parent":
        raise unknown_parent(detail, f"{name} was not enqueued")
    if code == "batch":
        group = choices.extra.group if choices.extra is not None else ""
        raise BatchClosed(f"batch {group} is {detail}; {name} was not added to it")
    if code == "limited":
        raise RateLimited(
            f"{name} is over its dispatch limit; a slot is free in {int(detail) / 1000:g} s; it was not enqueued"
        )
    return item.id


def unknown_parent(parent: str, so: str) -> JobNotFound:
    """What to raise where a job is to wait for one that is not there; ``so``: what comes of it."""
    return JobNotFound(
        f"depends_on names {parent}, and no such job, batch or chain is known: it was never dispatched here, or retention has"
        f" removed it; {so}"
    )


def _all_settled(items: Sequence[Dispatching], choices: Sequence[Choices], said: Sequence[Said]) -> list[UUID]:
    """The ids to answer with; where the store did not take some, one error that names those which are in."""
    ids: list[UUID] = []
    first: RfJobsError | None = None
    for item, chosen, what in zip(items, choices, said, strict=True):
        try:
            ids.append(_settled(item, chosen, what))
        except RfJobsError as error:
            first = first or error
    if first is None:
        return ids
    enqueued = ", ".join(str(job_id) for job_id in ids) or "none"
    raise type(first)(
        f"{first}; of {len(items)} jobs {len(items) - len(ids)} were refused; enqueued were: {enqueued}"
    ) from first


def difference(job_id: str, holder: bytes, mine: bytes) -> str:
    """What to say where two envelopes are not of the same job; '' where they are."""
    there, here = envelope.readable(holder), envelope.decode(mine)
    if there is None:
        return f"job id {job_id} is taken by a job whose envelope nobody can read; dispatch under another id"
    if (there.job, there.queue, digest_of(there)) == (here.job, here.queue, digest_of(here)):
        return ""
    return f"job id {job_id} is taken by a {there.job} on queue {there.queue!r}; dispatch under another id"
