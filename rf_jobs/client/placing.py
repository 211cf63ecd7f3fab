"""What a dispatch needs to know of shards: where those are that a job waits for, or belongs to, and whether what its class asks
for can be had where its queue is. With one shard there is nothing to ask.

Parts of a batch, parents and children may be in any shards. A queue, a limit and a class that is unique are in one: who comes
first with a name says in which, and others who have it elsewhere are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from rf_jobs.client.dispatching import Coalescer, Said
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import Dispatching, rejected
from rf_jobs.store import batch_calls, options, shard_calls
from rf_jobs.store.keys import plain, relative
from rf_jobs.store.options import Options
from rf_jobs.store.shapes import Draft
from rf_jobs.words.errors import BatchClosed, InvalidOption, RfJobsError

Homes = Mapping[str, int]
"""In which shards jobs and batches are, by their ids."""
Refused = dict[int, Said]
"""What is to be said of those that can't be sent, by their positions."""


class Placer:
    """Places dispatches for one manager, and sends them."""

    def __init__(self, lifecycle: Lifecycle, coalescer: Coalescer) -> None:
        self._bus = lifecycle.bus
        self._store = lifecycle.store
        self._shards = lifecycle.store.shards
        self._coalescer = coalescer
        self._claimed: dict[str, int] = {}

    @property
    def is_needed(self) -> bool:
        """Whether there are several shards."""
        return len(self._shards) > 1

    # --- sending -------------------------------------------------------------------------------------------------

    async def send(self, item: Dispatching) -> Said:
        """Send one; answers with what is to be said of it. Raises as ``place`` does."""
        if not self.is_needed:
            return await self._coalescer.send(item)
        (placed,), refused = await self._placed([item])
        return refused[0] if refused else await self._coalescer.send(placed)

    async def send_all(self, items: Sequence[Dispatching], known: Homes | None = None) -> list[Said]:
        """Send many; answers with what is to be said of each. Raises as ``place`` does."""
        if not self.is_needed:
            return await self._coalescer.send_all(items)
        placed, refused = await self._placed(items, known)
        all_said = dict(refused)
        for wave in waves(placed, refused):
            said = await self._coalescer.send_all([placed[at] for at in wave])
            all_said.update(zip(wave, said, strict=True))
        return [all_said[at] for at in range(len(items))]

    async def _placed(
        self, items: Sequence[Dispatching], known: Homes | None = None
    ) -> tuple[list[Dispatching], Refused]:
        try:
            placed, refused = await self.place(items, known)
        except RfJobsError as error:
            self._reject(items, type(error).__name__)
            raise
        self._reject([items[at] for at in refused], BatchClosed.__name__)
        return placed, refused

    def _reject(self, items: Sequence[Dispatching], error: str) -> None:
        for item in items:
            self._bus.emit(rejected(item.event, error))

    # --- where -----------------------------------------------------------------------------------------------------

    async def find(self, ids: Sequence[str]) -> dict[str, int]:
        """Where those of these jobs and batches are that are known. Raises ``BackendError``."""
        if not ids:
            return {}
        commands = self._store.commands
        jobs, batches = await self._store.run_many([commands.homes(family, ids) for family in ("job", "batch")])
        found = {}
        for each, job, batch in zip(ids, jobs, batches, strict=True):
            if job is not None or batch is not None:
                found[each] = job if job is not None else batch
        return found

    async def place(
        self, items: Sequence[Dispatching], known: Homes | None = None
    ) -> tuple[list[Dispatching], Refused]:
        """The same as they are to be sent. ``known``: where those are that are yet to be dispatched. Raises ``InvalidOption`` for
        what is in another shard than its queue, and ``BackendError``."""
        await self.claim([item.draft for item in items])
        asked = {at: options.decode(item.draft.options) for at, item in enumerate(items) if item.draft.options}
        homes = {item.draft.id: self._shards.of(item.draft.queue) for item in items} | dict(known or {})
        named = {each for one in asked.values() for each in _named(one) if each not in homes}
        if named:
            homes.update(await self.find(sorted(named)))
        placed, refused = list(items), await self._expect(items, asked, homes)
        for at, one in asked.items():
            shard = self._shards.of(items[at].draft.queue)
            if one.depends is not None:
                one.depends.parents = [named_in(shard, each, homes) for each in one.depends.parents]
            if one.batch:
                one.batch = named_in(shard, one.batch, homes)
            placed[at] = replace(items[at], draft=replace(items[at].draft, options=options.encode(one)))
        return placed, refused

    async def _expect(self, items: Sequence[Dispatching], asked: Mapping[int, Options], homes: Homes) -> Refused:
        """Have batches wait for members in other shards, before these are there."""
        members: dict[tuple[str, bool], list[int]] = {}
        for at, one in asked.items():
            if one.batch in homes and homes[one.batch] != self._shards.of(items[at].draft.queue):
                members.setdefault((one.batch, one.behind), []).append(at)
        refused: Refused = {}
        for (batch, behind), places in members.items():
            home = homes[batch]
            refs = [named_in(home, items[at].draft.id, homes) for at in places]
            shut, *last = await self._store.run(batch_calls.expect(home, batch, refs, behind=behind))
            if shut:
                refused.update((at, ("batch", shut)) for at in places)
            for at, before in zip(places, last, strict=False):
                self._go_behind(asked[at], relative(before, home, self._shards.of(items[at].draft.queue)))
        return refused

    def _go_behind(self, one: Options, last: str) -> None:
        """The chain has said behind which step it goes."""
        parents = one.depends.parents if one.depends is not None else []
        failure = one.depends.failure if one.depends is not None else "cancel"
        one.depends = options.Depends([last, *parents], failure)
        one.behind = False

    # --- what is in one shard --------------------------------------------------------------------------------------

    async def claim(self, drafts: Iterable[Draft]) -> None:
        """Make sure that queues, limits and unique classes are where these jobs go. Raises ``InvalidOption``."""
        if self.is_needed:
            wanted = {(what, self._shards.of(draft.queue)): draft.queue for draft in drafts for what in _claims(draft)}
            await self._claim(wanted)

    async def claim_queues(self, queues: Iterable[str]) -> None:
        """The same for those who serve queues."""
        if self.is_needed:
            await self._claim({(f"queue {queue}", self._shards.of(queue)): queue for queue in queues})

    async def _claim(self, wanted: Mapping[tuple[str, int], str]) -> None:
        """``wanted``: queues, by what is to be in which shard for them."""
        new = {what: shard for what, shard in wanted if what not in self._claimed}
        if new:
            found = await self._store.run(shard_calls.claim(new))
            self._claimed.update(zip(new, found, strict=True))
        for (what, shard), queue in wanted.items():
            if self._claimed[what] != shard:
                raise InvalidOption(_elsewhere(what, self._claimed[what], queue, shard))


def waves(items: Sequence[Dispatching], refused: Refused) -> list[list[int]]:
    """Positions, in the order in which they are to be sent: what waits for a job in another shard after that one, so that it is
    there when it is asked for."""
    found: list[list[int]] = []
    wave_of: dict[str, int] = {}
    for at, item in enumerate(items):
        if at in refused:
            continue
        asked = options.decode(item.draft.options)
        parents = asked.depends.parents if asked.depends is not None else []
        mine = max((wave_of.get(plain(each), -1) + ("|" in each) for each in parents), default=0)
        wave_of[item.draft.id] = mine = max(mine, 0)
        while len(found) <= mine:
            found.append([])
        found[mine].append(at)
    return found


def _elsewhere(what: str, home: int, queue: str, shard: int) -> str:
    if what == f"queue {queue}":
        return (
            f"queue {queue!r} is in shard {home} of this store, and in shard {shard} by the settings here; give it the same place"
            " everywhere (queue_shards in [jobs])"
        )
    return (
        f"the {what} is in shard {home}, and queue {queue!r} is in shard {shard}, where it would bind nobody; put all queues that it"
        " concerns into one shard (queue_shards in [jobs])"
    )


def _claims(draft: Draft) -> list[str]:
    claims = [f"queue {draft.queue}"]
    if draft.options:
        asked = options.decode(draft.options)
        claims += [f"limit {word[1:].partition('/')[0]}" for word in asked.links.split() if word[0] == "l"]
        if asked.slot is not None:
            claims.append(f"dispatch limit {asked.slot.name}")
        if asked.unique is not None:
            claims.append(f"unique lock of {asked.job_class}")
    return claims


def _named(asked: Options) -> list[str]:
    parents = [] if asked.depends is None else asked.depends.parents
    return [*parents, asked.batch] if asked.batch else parents


def named_in(shard: int, each: str, homes: Homes) -> str:
    """A job or a batch as one in this shard has to name it; one that is not known, as if it were there."""
    return relative(each, homes.get(each, shard), shard)
