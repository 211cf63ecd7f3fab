"""Random jobs that wait for each other, in random groups, with everything that can happen to them in any order, each call sent
once or twice, consequences left in the outbox or done. Beside it stands what a few sentences say of workflows: whoever waits,
waits for somebody; a batch knows its members; what it calls, it calls once; in the end nothing waits."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from rf_jobs.store import limit_calls
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.options import Depends, Options, Unique
from rf_jobs.store.shapes import Retention
from rf_jobs.words.states import FINAL, OPEN, State
from tests.property.flow import DELAYED, KEEP_ALL, KEEP_NONE, LUCK, Luck, bounded, explore
from tests.property.flow_model import Group, Model, Task

QUEUES = ("a", "b", "calls")
EXAMPLES = int(os.environ.get("RF_JOBS_TEST_EXAMPLES", "25"))
KEEP_TWO = Retention((2, 10**9), (2, 10**9), (2, 10**9), (2, 10**9))
OVER = {"complete": "completed", "bury": "dead", "discard": "cancelled", "expire": "expired"}
AGAIN = ("retry", "snooze", "release", "park")


class Machine(Model):
    @initialize(seed=st.integers(0, 10**6), often=st.sampled_from([0.0, 0.5]))
    def start(self, seed: int, often: float) -> None:
        self.flow.dice = random.Random(seed)
        self.flow.often = often

    # --- what is asked for ---------------------------------------------------------------------------------------

    @rule(
        luck=LUCK, policy=st.sampled_from(["cancel", "run", "dead"]), delayed=st.booleans(), queue=st.sampled_from("ab")
    )
    def dispatch(self, luck: Luck, policy: str, delayed: bool, queue: str) -> None:
        group = luck.choice(["", "", *self.groups])
        known = sorted((self.tasks.keys() | self.groups.keys()) - self.waiting_for(group))
        parents = set(luck.sample(known, min(len(known), luck.randint(0, 3))))
        lock = luck.choice([None, None, "x", "y"])
        asked = Options(batch=group)
        if parents:
            asked.depends = Depends(sorted(parents), policy)
        if lock:
            mode = luck.choice(["start", "done"])
            asked.unique = Unique(lock, mode, 0, luck.choice(["return", "replace"]))
        self.admit(Task(queue, parents, policy, group), asked, DELAYED if delayed else "")

    def admit(self, task: Task, asked: Options, when: str = "") -> None:
        job_id = self.flow.new_id()
        said = self.flow.enqueue([job_id], asked, task.queue, when)
        code = said.get(0, ("", ""))[0]
        if code in ("", "waits", "delayed"):
            self.tasks[job_id] = task
            if task.group:
                self.groups[task.group].members.add(job_id)
        elif code == "no_parent":
            standing = self.flow.look().job_ids()
            assert any(parent not in standing for parent in task.parents - self.groups.keys())
        elif code == "batch":
            fields = self.flow.batch(task.group)
            assert "finished" in fields or "cancelled" in fields
        else:
            assert code == "unique"
        self.listen()

    def waiting_for(self, group: str) -> set[str]:
        """What can't be a parent of a member of this group, since it waits for it."""
        found: set[str] = set()
        todo = [group] if group else []
        while todo:
            one = todo.pop()
            if one in found:
                continue
            found.add(one)
            todo += [job for job, task in self.tasks.items() if one in task.parents]
            for name, each in self.groups.items():
                if one in each.members:
                    todo.append(name)
        return found

    @rule(luck=LUCK, lenient=st.booleans())
    def open_group(self, luck: Luck, lenient: bool) -> None:
        unsealed = [name for name, group in self.groups.items() if not group.sealed]
        outer = luck.choice(["", *unsealed]) if unsealed else ""
        fields = self.flow.batch(outer)
        if outer and ("finished" in fields or "cancelled" in fields):
            return
        name = self.flow.open(outer=outer, **({"lenient": "1"} if lenient else {}))
        self.groups[name] = Group(outer, lenient)
        if outer:
            self.groups[outer].members.add(name)

    @rule(luck=LUCK)
    def seal(self, luck: Luck) -> None:
        unsealed = [name for name, group in self.groups.items() if not group.sealed]
        if unsealed:
            name = luck.choice(unsealed)
            self.flow.seal(name)
            self.groups[name].sealed = True
            self.listen()

    @rule(luck=LUCK)
    def insert(self, luck: Luck) -> None:
        """A step between a running one and those that wait for it."""
        inside = [job for job in self.leases if job.id in self.tasks and self.tasks[job.id].group]
        if not inside:
            return
        job = luck.choice(inside)
        seen = self.flow.look()
        children = seen.sets.get(("dependents", job.id), set()) if job.id not in self.outcome else set()
        task = Task("a", {job.id}, "cancel", self.tasks[job.id].group)
        before = set(self.tasks)
        self.admit(task, Options(batch=task.group, depends=Depends([job.id], "cancel"), between=True))
        for new in self.tasks.keys() - before:
            for child in children:
                self.tasks[child].parents = self.tasks[child].parents - {job.id} | {new}

    # --- what workers do -----------------------------------------------------------------------------------------

    @rule(wanted=st.integers(1, 4), queues=st.permutations(QUEUES))
    def fetch(self, wanted: int, queues: list[str]) -> None:
        jobs = self.flow.fetch(wanted, queues)
        self.listen()
        for job in jobs:
            task = self.tasks.get(job.id)
            if task is None or task.replayed:
                continue
            good = self.ended if task.policy == "run" else self.completed
            early = task.parents - good
            assert not early, f"{job.id} runs, and of its parents these have not ended as they must: {early}"
        self.leases += jobs

    @rule(luck=LUCK, verb=st.sampled_from([*OVER, *OVER, "complete", "complete", *AGAIN, "crash"]), value=st.booleans())
    def finish(self, luck: Luck, verb: str, value: bool) -> None:
        if not self.leases:
            return
        jobs = luck.sample(self.leases, min(len(self.leases), luck.randint(1, 3)))
        self.leases = [job for job in self.leases if job not in jobs]
        verdicts = self.flow.finish(jobs, verb, b"1" if value and verb == "complete" else b"")
        for job, verdict in zip(jobs, verdicts, strict=True):
            if verdict == 1 and verb in OVER:
                self.over(job.id, OVER[verb])
            elif verdict in (3, 4):
                self.over(job.id, "cancelled" if verdict == 3 else "dead")
        self.listen()

    @rule(luck=LUCK)
    def a_worker_dies(self, luck: Luck) -> None:
        if not self.leases:
            return
        job = luck.choice(self.leases)
        self.flow.client.zadd(self.flow.key("running", job.queue), {job.id: 1}, xx=True)
        call = self.flow.commands.reclaim(100, 2, self.keep, b'{"attempt":1}', QUEUES)
        for taken in self.flow.run(call):
            if taken.state in FINAL:
                self.over(taken.id, taken.state)
        self.listen()

    # --- what operators do ---------------------------------------------------------------------------------------

    @rule(luck=LUCK)
    def cancel(self, luck: Luck) -> None:
        if self.tasks:
            job_id = luck.choice(sorted(self.tasks))
            state, done = self.flow.run(self.flow.commands.cancel(job_id, self.tasks[job_id].queue, "no", self.keep))
            if done and state != "running":
                self.over(job_id, "cancelled")
            self.listen()

    @rule(
        queue=st.sampled_from("ab"), state=st.sampled_from([State.READY, State.SCHEDULED, State.BLOCKED, State.PARKED])
    )
    def clear(self, queue: str, state: State) -> None:
        often, self.flow.often = self.flow.often, 0.0  # sent again it clears what is there then
        for job_id in self.flow.run(self.flow.commands.clear(queue, state, 2)):
            self.over(job_id, "cancelled")
        self.flow.often = often
        self.listen()

    @rule(luck=LUCK, forget=st.booleans())
    def dead_letter(self, luck: Luck, forget: bool) -> None:
        dead = self.flow.look().members("dead")
        if not dead:
            return
        job_id = luck.choice(sorted(dead))
        if forget:
            self.flow.run(self.flow.commands.forget(dead[job_id], [job_id]))
        elif self.flow.revive(job_id, queue=dead[job_id]):
            self.outcome.pop(job_id, None)
            if job_id in self.tasks:
                self.tasks[job_id].replayed = True
        self.listen()

    @rule(bury=st.booleans())
    def parked(self, bury: bool) -> None:
        for queue in QUEUES:
            if bury:
                for job_id, _ in self.flow.run(self.flow.commands.bury_parked(queue, -1, 100, self.keep, b"x", b"y")):
                    self.over(job_id, "dead")
            else:
                self.flow.run(self.flow.commands.unpark(queue, self.flow.look().order("parked", queue)))
        self.listen()

    @rule(luck=LUCK)
    def stop(self, luck: Luck) -> None:
        if self.groups:
            name = luck.choice(sorted(self.groups))
            self.flow.stop(name)
            self.listen()

    @rule(ms=st.sampled_from([0, None, None]))
    def hold_the_class(self, ms: int | None) -> None:
        self.flow.run(limit_calls.hold(self.flow.commands, "class:job", ms))
        self.listen()

    @rule(luck=LUCK, what=st.sampled_from(["priority", "due"]))
    def move(self, luck: Luck, what: str) -> None:
        if self.tasks:
            job_id = luck.choice(sorted(self.tasks))
            value = luck.choice(["0", "2"] if what == "priority" else ["", DELAYED])
            self.flow.run(self.flow.commands.move(job_id, self.tasks[job_id].queue, what, value))
            self.listen()

    @rule()
    def time_passes(self) -> None:
        self.make_due()

    def make_due(self) -> None:
        for queue in QUEUES:
            for job_id in self.flow.look().order("later", queue):
                self.flow.client.zadd(self.flow.key("later", queue), {job_id: 1})

    @rule(all_of_it=st.booleans())
    def settle(self, all_of_it: bool) -> None:
        if all_of_it:
            self.flow.settle()
        else:
            self.flow.run(self.flow.commands.settle())
        self.listen()

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            self.flow.close()

    def drain(self) -> None:
        """Whatever happened before: in the end all is over."""
        flow = self.flow
        flow.often = 0.0
        self.hold_the_class(None)
        for name in reversed(self.groups):
            flow.seal(name)
            self.groups[name].sealed = True
        flow.finish(self.leases, "release")
        for _ in range(200):
            flow.settle()
            self.make_due()
            self.parked(False)
            jobs = flow.fetch(100, QUEUES)
            for job, verdict in zip(jobs, flow.finish(jobs, "complete"), strict=True):
                assert verdict == 1
                self.over(job.id, "completed")
            self.listen()
            if not jobs and not flow.outbox():
                break
        states = flow.states()
        stuck = {job: flow.look().meta(job) for job, state in states.items() if State(state) in OPEN}
        assert stuck == {}, "these would wait for ever"
        for check in (
            self.the_store_is_sound, self.who_waits_waits_for_somebody, self.groups_know_their_members,
            self.no_lock_is_orphaned, self.nothing_is_called_twice,
        ):  # fmt: skip
            check()
        assert all("finished" in flow.batch(name) for name in self.groups)


@pytest.fixture
def machine(server: EmbeddedServer) -> Iterator[type[Machine]]:
    Machine.url = server.url
    yield Machine
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


@pytest.mark.timeout(400)
def test_workflows_in_every_order(machine: type[Machine]) -> None:
    machine.keep = KEEP_ALL
    explore(machine, EXAMPLES)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("steps", "chunk"), [(1, 1), (4, 2)])
def test_what_is_too_much_for_one_script_is_done_later(machine: type[Machine], steps: int, chunk: int) -> None:
    machine.keep = KEEP_ALL
    with bounded(steps, chunk):
        explore(machine, EXAMPLES)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("keep", [KEEP_NONE, KEEP_TWO])
def test_what_is_over_need_not_be_kept(machine: type[Machine], keep: Retention) -> None:
    machine.keep = keep
    explore(machine, EXAMPLES)
