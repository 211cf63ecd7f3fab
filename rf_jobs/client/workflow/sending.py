"""Dispatching groups: open them, enqueue their members, seal them. Each part may be sent twice, and all of it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any
from uuid import UUID

import msgspec

from rf_jobs.client.dispatcher import unknown_parent
from rf_jobs.client.dispatching import Preparer, Said
from rf_jobs.client.offload import Offload
from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.placing import Placer, named_in
from rf_jobs.client.workflow.groups import Group, Member
from rf_jobs.client.workflow.plan import Place, Plan, PlannedGroup, plan_members, plan_of
from rf_jobs.core import transitions
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model.job import Job
from rf_jobs.model.middleware import MiddlewareStack
from rf_jobs.store import batch_calls
from rf_jobs.store.batch_calls import NewBatch
from rf_jobs.store.keys import plain, relative
from rf_jobs.words.errors import BatchClosed, InvalidOption

_json = msgspec.json.Encoder()


class GroupSender:
    """Sends groups for one manager."""

    def __init__(
        self, lifecycle: Lifecycle, preparer: Preparer, middleware: MiddlewareStack, keep_ms: int, offload: Offload,
        placer: Placer,
    ) -> None:  # fmt: skip
        self._lifecycle = lifecycle
        self._preparer = preparer
        self._middleware = middleware
        self._keep_ms = keep_ms
        self._offload = offload
        self._placer = placer

    async def send(self, group: Group) -> UUID:
        """Dispatch a group with all that is in it."""
        plan = plan_of(group)
        mine = {str(choices.id) for _, choices in plan.jobs}
        for code, detail in await self._send(plan):
            # Of its own members one was refused, for which there is a word of its own.
            if code == "no_parent" and plain(detail) not in mine:
                raise unknown_parent(detail, "what waits for it is missing, and the group ends as failed")
            # A member that failed, or somebody, may have cancelled it before all of it was sent: so it ends, and says so itself.
            if code == "batch" and detail != "cancelled":
                raise _closed(str(group.id), detail)
        return group.id

    async def add(self, members: Sequence[Member], batch: str) -> list[UUID]:
        """More members for a batch that is there. Raises ``BatchClosed``."""
        plan = plan_members(list(members), Place(batch, batch, "", ()))
        for code, detail in await self._send(plan):
            if code == "batch":
                raise _closed(batch, detail)
        return [choices.id for _, choices in plan.jobs if choices.id is not None]

    async def _send(self, plan: Plan) -> list[Said]:
        store = self._lifecycle.store

        async def send() -> list[Said]:
            items = [self._preparer.prepare(job, choices) for job, choices in plan.in_order()]
            homes = await self._homes(plan, items) if self._placer.is_needed else {}
            opened = [self.opened(planned, homes) for planned in plan.groups]
            if self._placer.is_needed:
                await self._placer.claim_queues(_queues_of(opened))
            await self._know(plan)
            for batches in _by_shard(opened):
                state = await self._open(batches)
                if state == "known" and batches[0] is opened[0]:
                    return []  # all of it is there already
                if state not in ("", "known"):
                    raise _closed(batches[0].id if state == "abandoned" else plain(batches[0].outer), state)
            items = await self._offload.store_large(items)
            said = await self._placer.send_all(items, homes)
            if opened:
                await self._lifecycle.apply(transitions.seal(store.commands, opened[::-1]))
            return said

        said: list[Said] = await self._middleware.batch(len(plan.jobs), send)
        return said

    async def _homes(self, plan: Plan, items: Sequence[Dispatching]) -> dict[str, int]:
        """Where each job and each group is to be: a group where its first member is, unless it is somewhere already."""
        shards = self._lifecycle.store.shards
        homes = {item.draft.id: shards.of(item.draft.queue) for item in items}
        groups = [str(planned.group.id) for planned in plan.groups]
        known = await self._placer.find([*groups, *{planned.outer for planned in plan.groups if planned.outer}])
        first: dict[str, int] = {}
        for _, choices in plan.jobs:
            first.setdefault(choices.more().group, homes[str(choices.id)])
        for planned in reversed(plan.groups):  # inner ones first
            group = str(planned.group.id)
            homes[group] = known.get(group, first.get(group, shards.of(group)))
            if planned.outer:
                first.setdefault(planned.outer, homes[group])
        return known | homes

    async def _open(self, batches: Sequence[NewBatch]) -> str:
        """Open batches of one shard; what is in another one's batch is expected there first."""
        for batch in batches:
            home, bar, outer = batch.outer.partition("|")
            if bar:
                expect = batch_calls.expect(int(home), outer, [relative(batch.id, batch.shard, int(home))])
                if shut := (await self._lifecycle.store.run(expect))[0]:
                    return shut
        return await self._lifecycle.apply(transitions.open_batches(batches))

    async def _know(self, plan: Plan) -> None:
        """Raise ``JobNotFound`` for parents that are neither in the plan nor in the store."""
        mine = {str(choices.id) for _, choices in plan.jobs} | {str(planned.group.id) for planned in plan.groups}
        asked = dict.fromkeys(
            each for _, choices in plan.jobs if choices.extra is not None for each in choices.extra.parents
        )
        others = [each for each in asked if each not in mine]
        found = await self._placer.find(others)
        for each in others:
            if each not in found:
                raise unknown_parent(each, "nothing was dispatched")

    def opened(self, planned: PlannedGroup, homes: Mapping[str, int] | None = None) -> NewBatch:
        """A group as the store takes it; ``homes``: where groups and jobs are. Raises as a dispatch of its callbacks does."""
        group = planned.group
        homes = homes or {}
        home = homes.get(str(group.id), 0)
        fields: dict[str, str | bytes] = {"kind": group.kind, "keep": str(self._keep_ms)}
        if group.label:
            fields["name"] = group.label
        if group.is_lenient:
            fields["lenient"] = "1"
        if planned.last:
            fields["last"] = named_in(home, planned.last, homes)
        for event in group.callbacks:
            drafts = [self._draft(job, str(group.id), home) for job in group.jobs_of(event)]
            if drafts:
                fields[event] = _json.encode(drafts)
        return NewBatch(str(group.id), named_in(home, planned.outer, homes), fields, home)

    def _draft(self, given: Job | Pending[Any], group: str, home: int) -> tuple[str, ...]:
        """A callback as the store keeps it until it is due; with its shard, where that is not the group's."""
        job, choices = given.take() if isinstance(given, Pending) else (given, Choices())
        name = job.__job_class__.name
        extra = choices.more()
        if (
            choices.when
            or choices.expires_ms is not None
            or extra.parents
            or extra.unique
            or extra.slot
            or job.__job_class__.asks
        ):
            raise InvalidOption(
                f"callback {name} is delayed, expires, is unique, limited or waits for others; a callback can have a queue, a"
                " priority, max_attempts and tags: dispatch the rest from it"
            )
        extra.batch = group
        extra.conversation = group
        item: Dispatching = self._preparer.prepare(job, choices)
        self._offload.check(item)
        draft = item.draft
        shard = self._lifecycle.store.shards.of(draft.queue)
        kept = draft.id, draft.queue, str(draft.priority), name, draft.data.decode()
        return kept if shard == home else (*kept, str(shard))


def _queues_of(batches: Sequence[NewBatch]) -> set[str]:
    """Where their callbacks go."""
    drafts = (batch.fields.get(event, b"[]") for batch in batches for event in ("then", "catch", "finally"))
    return {draft[1] for data in drafts for draft in msgspec.json.decode(data)}


def _by_shard(batches: Sequence[NewBatch]) -> list[list[NewBatch]]:
    """Runs of batches that are in one shard."""
    return [list(run) for _, run in groupby(batches, key=lambda batch: batch.shard)]


def _closed(batch: str, state: str) -> BatchClosed:
    return BatchClosed(f"batch {batch} is {state}; nothing can be added to it")
