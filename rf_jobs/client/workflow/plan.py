"""From a tree of batches and chains to what the store takes: groups to open, jobs to enqueue, in an order in which parents come
before those that wait for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

from rf_jobs.client.pending import Choices, Pending
from rf_jobs.client.workflow.groups import Batch, Chain, Group, Member
from rf_jobs.model.job import Job
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.ids import member_id, new_id

MAX_DEPTH = 20


@dataclass
class PlannedGroup:
    """A group to be opened."""

    group: Group
    outer: str
    """The group that it is a member of, '' for none."""
    last: str = ""
    """A chain's last step."""


@dataclass
class Plan:
    """What a dispatch of groups comes to."""

    conversation: str
    groups: list[PlannedGroup] = field(default_factory=list)
    jobs: list[tuple[Job, Choices]] = field(default_factory=list)
    """In the order in which they stand in the groups."""
    is_new: bool = False
    """Whether its groups are what is dispatched: then its members have the same ids each time."""
    group_ids: set[UUID] = field(default_factory=set)
    taken: set[Choices] = field(default_factory=set)
    tangled: bool = False
    """Whether a member waits for one that it names."""

    def in_order(self) -> list[tuple[Job, Choices]]:
        """The jobs, each behind those that it waits for."""
        if not self.tangled:
            return self.jobs
        order = {each: at for at, each in enumerate(self._sorter().static_order())}
        return sorted(self.jobs, key=lambda one: order[str(one[1].id)])

    def check(self) -> None:
        """Raise ``InvalidOption`` for members that wait for each other, or for the group that they are in."""
        try:
            if self.tangled:
                self._sorter().prepare()
        except CycleError as error:
            circle = " <- ".join(error.args[1])
            raise InvalidOption(f"depends_on goes round in a circle: {circle}; none of these could ever run") from None

    def _sorter(self) -> TopologicalSorter[str]:
        sorter = TopologicalSorter[str]()
        for _, choices in self.jobs:
            extra = choices.more()
            sorter.add(str(choices.id), *extra.parents)
            sorter.add(extra.group, str(choices.id))  # a group waits for its members
        for planned in self.groups:
            sorter.add(planned.outer, str(planned.group.id))
        return sorter


@dataclass(frozen=True)
class Place:
    """Where a member stands: its direct group, the batch and the chain that its context knows, whom it waits for."""

    group: str
    batch: str
    chain: str
    after: tuple[str, ...]


def plan_of(group: Group) -> Plan:
    """Raises ``InvalidOption`` for a tree that can't be."""
    if not isinstance(group, Group):
        raise InvalidOption(f"the group to send is {group!r}; give a Batch or a Chain")
    plan = Plan(str(group.id), is_new=True)
    _add_group(plan, group, Place("", "", "", ()), ())
    plan.check()
    return plan


def plan_members(members: list[Member], place: Place) -> Plan:
    """Members for a batch that is there already."""
    plan = Plan(place.group)
    for member in members:
        _add(plan, member, place, ())
    plan.check()
    return plan


def _add_group(plan: Plan, group: Group, place: Place, inside: tuple[Group, ...]) -> None:
    if group in inside or group.id in plan.group_ids:
        raise InvalidOption(
            f"{group.kind} {group.label or group.id} is in this dispatch twice, or inside itself; make another one"
        )
    if len(inside) >= MAX_DEPTH:
        raise InvalidOption(f"groups are nested deeper than {MAX_DEPTH}")
    if not group.members and (inside or isinstance(group, Chain) or place.group):
        raise InvalidOption(f"{group.kind} {group.label or group.id} has no members")
    planned = PlannedGroup(group, place.group)
    plan.groups.append(planned)
    plan.group_ids.add(group.id)
    own = str(group.id)
    if isinstance(group, Batch):
        for member in group.members:
            _add(plan, member, Place(own, own, "", place.after), (*inside, group))
        return
    after = place.after
    for at, step in enumerate(group.members):
        after = (_add(plan, step, Place(own, place.batch, own, after), (*inside, group)),)
        if at < len(group.members) - 1 and not isinstance(step, (Batch, Chain)):
            plan.jobs[-1][1].more().followed = True
    planned.last = after[0]


def step_of(member: Job | Pending[Any], place: Place) -> tuple[Job, Choices]:
    """A further step for a chain that is there already."""
    if not isinstance(member, (Job, Pending)):
        raise InvalidOption(
            f"a step is {member!r}; give a job or a builder: a group can't be put into a chain that runs"
        )
    plan = Plan(place.group)
    _add(plan, member, place, ())
    plan.check()
    return plan.jobs[0]


def _add(plan: Plan, member: Member, place: Place, inside: tuple[Group, ...]) -> str:
    """Answers with the id of what was added."""
    if isinstance(member, (Batch, Chain)):
        _add_group(plan, member, place, inside)
        return str(member.id)
    if isinstance(member, Pending):
        job, choices = member.take()
    elif isinstance(member, Job):
        job, choices = member, Choices()
    else:
        raise InvalidOption(f"a member is {member!r}; give a job, a builder, a Batch or a Chain")
    if choices in plan.taken:
        raise InvalidOption(f"{job.__job_class__.name} is a member twice; build it anew")
    plan.taken.add(choices)
    if choices.id is None:
        choices.id = member_id(UUID(place.group), len(plan.jobs)) if plan.is_new else new_id()
    plan.tangled = plan.tangled or bool(choices.more().parents)
    _place(job, choices, place, plan.conversation)
    plan.jobs.append((job, choices))
    return str(choices.id)


def _place(job: Job, choices: Choices, place: Place, conversation: str) -> None:
    extra = choices.more()
    name = job.__job_class__.name
    if place.chain and (extra.unique is not None or job.__job_class__.options.unique_for is not None):
        raise InvalidOption(
            f"step {name} is unique: were an equal job there already, the chain could not go on; take unique_for away, or dispatch"
            " it from a step"
        )
    if extra.slot is not None and extra.slot.over != "delay":
        raise InvalidOption(f"{name} has on_limit={extra.slot.over!r}: a member of a group can only be delayed")
    if extra.group not in ("", place.group):
        raise InvalidOption(f"{name} is a member of group {extra.group} already; build it anew")
    extra.group, extra.batch, extra.chain = place.group, place.batch, place.chain
    extra.parents = tuple(dict.fromkeys((*extra.parents, *place.after)))
    extra.conversation = conversation
