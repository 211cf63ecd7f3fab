"""What a few sentences say of workflows, as a model that hears what followed from each call, and as invariants: whoever waits,
waits for somebody; a batch knows its members; what it calls, it calls once; no lock outlives its holder."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis.stateful import RuleBasedStateMachine, invariant

from rf_jobs.core.inspector import imbalance
from rf_jobs.store.shapes import Leased, Retention
from rf_jobs.words.states import FINAL, OPEN, State
from tests.property import snapshot
from tests.property.flow import KEEP_ALL, Flow


@dataclass
class Task:
    """A job, as the model knows it."""

    queue: str
    parents: set[str]
    policy: str
    group: str = ""
    replayed: bool = False
    """Whether it was replayed itself: then it does without its parents."""


@dataclass
class Group:
    outer: str
    lenient: bool
    members: set[str] = field(default_factory=set)
    sealed: bool = False
    stopped: bool = False


class Model(RuleBasedStateMachine):
    """Starts with an empty server, ends with ``teardown``; who inherits from it does something."""

    url: str
    keep: Retention = KEEP_ALL
    flow_type: type[Flow] = Flow

    def __init__(self) -> None:
        super().__init__()
        self.flow = self.flow_type(self.url, self.keep)
        self.tasks: dict[str, Task] = {}
        self.groups: dict[str, Group] = {}
        self.outcome: dict[str, str] = {}
        """How each job or group ended, until it runs again."""
        self.completed: set[str] = set()
        """What has ever counted as completed."""
        self.ended: set[str] = set()
        """What has ever been over."""
        self.heard = 0
        self.leases: list[Leased] = []

    # --- what the model hears ------------------------------------------------------------------------------------

    def over(self, name: str, state: str) -> None:
        self.outcome[name] = state
        self.ended.add(name)
        if state == "completed" or (name in self.groups and self.groups[name].lenient):
            self.completed.add(name)

    def listen(self) -> None:
        """What followed from calls, in its order."""
        new, self.heard = self.flow.effects[self.heard :], len(self.flow.effects)
        for event in new:
            if event.event == "batch":
                self.over(event.id, event.queue)
            elif event.event in ("cancelled", "dead"):
                self.over(event.id, event.event)
            elif event.event == "restored":
                self.outcome.pop(event.id, None)

    # --- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def the_store_is_sound(self) -> None:
        faults = snapshot.faults(self.flow.look())
        assert faults == [], faults
        survey = self.flow.store.run(self.flow.commands.survey())
        assert {queue.name: imbalance(queue) for queue in survey.queues} == {queue.name: 0 for queue in survey.queues}

    @invariant()
    def nothing_is_called_twice(self) -> None:
        for name in self.groups:
            fired = self.flow.fired(name)
            assert len(fired) == len(set(fired)), fired

    @invariant()
    def who_waits_waits_for_somebody(self) -> None:
        if self.flow.outbox():
            return
        seen = self.flow.look()
        standing = {job: state for family, state in snapshot.STANDING.items() for job in seen.members(family)}
        for job_id, state in standing.items():
            meta, task = seen.meta(job_id), self.tasks.get(job_id)
            if state == "blocked" and not meta.get("held"):
                assert task is not None
                waits = seen.sets.get(("parents", job_id), set())
                assert waits, f"{job_id} is blocked and waits for nobody"
                for parent in waits:
                    assert self.is_open(parent, seen, standing), f"{job_id} waits for {parent}, which is over"
                    assert job_id in seen.sets.get(("dependents", parent), set()), f"{parent} does not know {job_id}"
                assert waits <= task.parents
                if task.policy != "run":
                    bad = {p for p in task.parents - waits if p in self.outcome and p not in self.completed}
                    assert not bad, f"{job_id} waits, though of its parents these failed: {bad}"
            if State(state) in FINAL and (by := meta.get("undone")):
                runs = self.is_open(by, seen, standing) and "cancelled" not in seen.hashes.get(("batch", by), {})
                assert not runs, f"{job_id} stays undone, though {by} runs again"

    def is_open(self, name: str, seen: snapshot.Snapshot, standing: dict[str, str]) -> bool:
        if name in self.groups:
            return "finished" not in seen.hashes["batch", name]
        return name in standing and State(standing[name]) in OPEN

    @invariant()
    def groups_know_their_members(self) -> None:
        if self.flow.outbox():
            return
        seen = self.flow.look()
        standing = {job: state for family, state in snapshot.STANDING.items() for job in seen.members(family)}
        for name, group in self.groups.items():
            fields = seen.hashes["batch", name]
            pending, failed = seen.sets.get(("pending", name), set()), seen.sets.get(("failed", name), set())
            loose = {m for m in group.members if m in self.groups and self.groups[m].lenient}
            running = {m for m in group.members if self.is_open(m, seen, standing)}
            bad = {m for m in group.members - running if self.outcome.get(m) != "completed"}
            assert pending - loose == running - loose, name
            assert failed - loose == bad - loose, name
            assert int(fields["total"]) == len(group.members)
            expected = seen.hashes.get(("expected", name))
            assert ("finished" in fields) == (group.sealed and not pending and not expected), (name, fields)
            assert ("doomed", name) not in seen.sets
            self.the_state_is_right(name, fields, failed)
            if "cancelled" in fields:
                idle = {
                    m for m in running if m in standing and standing[m] != "running" and "epoch" not in seen.meta(m)
                }
                assert not idle, f"batch {name} was cancelled, and these still wait: {idle}"

    def the_state_is_right(self, name: str, fields: dict[str, str], failed: set[str]) -> None:
        fired = self.flow.fired(name)
        if "finished" in fields:
            state = "cancelled" if "stopped" in fields else "failed" if failed or "abandoned" in fields else "completed"
            assert fields["state"] == state
            assert "finally" in fired
            assert state != "completed" or "then" in fired
            assert state != "failed" or "catch" in fired
        else:
            assert fields["state"] == "running"
        assert {word for word in fields if word.startswith("fired:")} == {f"fired:{event}" for event in fired}
        ends = {e.queue for e in self.flow.effects if e.event == "batch" and e.id == name}
        assert ("then" in fired) == ("completed" in ends)
        assert ("finally" in fired) == bool(ends)

    @invariant()
    def no_lock_is_orphaned(self) -> None:
        if self.flow.outbox():
            return
        seen = self.flow.look()
        standing = {job: state for family, state in snapshot.STANDING.items() for job in seen.members(family)}
        for (family, digest), value in seen.strings.items():
            if family == "unique":
                holder = value.split(" ")[0]
                assert State(standing.get(holder, "dead")) in OPEN, f"{digest} is held by {holder}, which is over"
