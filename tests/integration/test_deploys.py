"""Two releases of the code on one server: names change, payloads change, workers say what they can run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from rf_jobs import Batch, Encrypted, Job, JobContext, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.client.checking import check
from rf_jobs.client.workflow.callbacks import BatchCallback
from rf_jobs.core import census
from rf_jobs.model.events import Event, JobCompleted, JobParked, JobStarted, JobUnparked
from rf_jobs.model.jobclass import Registry
from rf_jobs.store.keys import Keys
from rf_jobs.words.errors import JobError
from rf_jobs.words.states import State
from tests.support.processes import rf_jobs
from tests.support.sealed import key, settings
from tests.support.waiting import until

QUEUE = "deploys"
CONFIG = WorkerConfig(queues=[QUEUE], sleep=5, lease=3)


class MailBefore(Job, queue=QUEUE, name="deploys:mail"):
    __qualname__ = "Mail"
    to: str

    async def handle(self, ctx: JobContext) -> str:
        return f"before: {self.to}"


class MailAfter(Job, queue=QUEUE, name="deploys:mail", version=2, max_attempts=1):
    __qualname__ = "Mail"
    address: str

    async def handle(self, ctx: JobContext) -> str:
        return f"after: {self.address}"

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        assert version == 1
        return {"address": payload["to"].lower()}


class Renamed(Job, queue=QUEUE, name="deploys:renamed", aliases=("deploys:former", "deploys:mail-long-ago")):
    to: str

    async def handle(self, ctx: JobContext) -> str:
        return f"{ctx.job_class}: {self.to}"


class Former(Job, queue=QUEUE, abstract=True):
    """Stands for the class before it was renamed: only the name of its jobs is its own."""


def registry(*classes: type[Job]) -> Registry:
    known = Registry()
    for each in classes:
        known.add(each.__job_class__)
    return known


BEFORE, AFTER = registry(MailBefore), registry(MailAfter, Renamed)


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert [queue.imbalance for queue in await running.queues()] == [0] * len(await running.queues())


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis.asyncio.Redis.from_url(redis_url) as one:
        yield one


async def dispatch_as(
    manager: QueueManager, client: redis.asyncio.Redis, name: str, args: str, version: int = 1
) -> str:
    """A job as another release, or another language, would have put it there."""
    job_id = str(await manager.dispatch(MailBefore(to="x")).delay(3600))
    key = manager.store.keys.of("job", job_id)
    letter = json.loads(await client.get(key) or "")
    letter |= {"job": name, "args": json.loads(args), "ver": version}
    await client.set(key, json.dumps(letter))
    await client.zadd(manager.store.keys.of("later", QUEUE), {job_id: 1})
    await client.rpush(manager.store.keys.of("wake", QUEUE), "1")
    return job_id


async def in_state(manager: QueueManager, state: State, count: int) -> None:
    async def look() -> bool:
        return (await manager.counts(QUEUE))[state] == count

    await until(look, f"{count} jobs {state}", 30)


async def test_a_job_under_an_earlier_name(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    told: list[tuple[str, str]] = []
    for kind in (JobStarted, JobCompleted):
        manager.bus.subscribe(kind, lambda event: told.append((type(event).__name__, event.job_class)))
    job_id = await dispatch_as(manager, client, "deploys:former", '{"to": "a"}')
    async with WorkerPool(CONFIG, manager, registry=AFTER):
        assert await manager.wait(job_id, 20) == "deploys:renamed: a"
    assert told == [("JobStarted", "deploys:renamed"), ("JobCompleted", "deploys:renamed")]
    assert (await manager.job(job_id)).job_class == "deploys:former", "the record shows what was dispatched"


async def test_what_an_old_worker_parked_a_new_one_runs(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    told: list[Event] = []
    for kind in (JobParked, JobUnparked):
        manager.bus.subscribe(kind, told.append)
    async with WorkerPool(CONFIG, manager, registry=BEFORE):
        job_id = await dispatch_as(manager, client, "deploys:former", '{"to": "b"}')
        await in_state(manager, State.PARKED, 1)
        record = await manager.job(job_id)
        assert (record.state, record.reason) == ("parked", "no worker knows the class deploys:former")
        async with WorkerPool(CONFIG, manager, registry=AFTER):
            # Either worker may get it first; the old one parks it again.
            assert await manager.wait(job_id, 60) == "deploys:renamed: b"
    assert {type(event) for event in told} == {JobParked, JobUnparked}


async def test_a_rolling_deploy_both_ways(manager: QueueManager) -> None:
    """Old and new clients dispatch while old and new workers run: all is done by who can."""
    async with WorkerPool(CONFIG, manager, registry=BEFORE):
        first = await manager.dispatch(MailBefore(to="A"))
        assert await manager.wait(first, 20) == "before: A"
        newer = await manager.dispatch(MailAfter(address="b"))
        await in_state(manager, State.PARKED, 1)
        assert (await manager.job(newer)).reason == "written by version 2 of the class, this worker has 1"
    async with WorkerPool(CONFIG, manager, registry=AFTER):
        assert await manager.wait(newer, 30) == "after: b"
        older = await manager.dispatch(MailBefore(to="C"))
        assert await manager.wait(older, 20) == "after: c", "upgraded"


async def test_an_upgrade_that_fails(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    job_id = await dispatch_as(manager, client, "deploys:mail", '{"unknown": 1}')
    async with WorkerPool(CONFIG, manager, registry=AFTER):
        with contextlib.suppress(JobError):
            await manager.wait(job_id, 20)
    record = await manager.job(job_id)
    assert (record.state, record.reason, record.attempt) == ("dead", "decode", 1)
    assert record.last_error is not None
    assert "does not fit deploys:mail version 2: 'to'; mend the payload" in record.last_error.message


# --- what workers can run ------------------------------------------------------------------------------------------


async def test_workers_say_what_they_can_run(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    async with (
        WorkerPool(CONFIG, manager, registry=BEFORE) as old,
        WorkerPool(CONFIG, manager, registry=AFTER) as new,
        WorkerPool(CONFIG, manager, registry=AFTER),
    ):

        async def all_beat() -> bool:
            return len(await manager.workers()) == 3

        await until(all_beat, "three workers")
        told = {worker.id: worker.catalog for worker in await manager.workers()}
        assert len(await client.keys(Keys().of("classes", "*"))) == 2, "those of one release share it"
    first, second = told[old.id], told[new.id]
    assert first is not None
    assert second is not None
    assert (first.classes, first.aliases) == ({"deploys:mail": 1}, {})
    assert second.classes == {"deploys:mail": 2, "deploys:renamed": 1}
    assert second.aliases == {"deploys:former": "deploys:renamed", "deploys:mail-long-ago": "deploys:renamed"}


async def test_it_is_told_once_and_when_it_changes(manager: QueueManager) -> None:
    known, calls = registry(MailBefore), []
    run = manager.store.run

    async def watched(call: Any, **rest: Any) -> Any:
        if call.script == "advertise":
            calls.append(call.args[1])
        return await run(call, **rest)

    manager.store.run = watched  # type: ignore[method-assign]
    async with WorkerPool(CONFIG, manager, registry=known) as pool:
        await pool._advertiser.tell()
        assert len(calls) == 1
        known.add(Renamed.__job_class__)

        async def told_again() -> bool:
            return len(calls) == 2

        await until(told_again, "the upkeep tells it")
    assert calls[0] != calls[1]


async def test_a_server_that_was_emptied_is_told_again(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    async def has_said() -> bool:
        return any(worker.catalog is not None for worker in await manager.workers())

    async with WorkerPool(CONFIG, manager, registry=BEFORE):
        await until(has_said, "it says what it can run")
        await client.flushall()
        await until(has_said, "it says so again", 30)


# --- what is parked --------------------------------------------------------------------------------------------------


async def test_what_is_parked_by_class(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    ids = [await dispatch_as(manager, client, f"deploys:gone-{n % 2}", "{}") for n in range(3)]
    async with WorkerPool(CONFIG, manager, registry=BEFORE):
        await in_state(manager, State.PARKED, 3)
    found = await census.parked(manager.store, [QUEUE])
    assert found.complete
    assert [(group.job_class, group.jobs, group.verdict) for group in found.groups] == [
        (f"deploys:gone-{n}", 2 - n, f"no worker knows the class deploys:gone-{n}") for n in range(2)
    ]
    assert {group.example for group in found.groups} <= set(ids)


# --- check -----------------------------------------------------------------------------------------------------------


async def test_check_finds_what_could_not_be_run(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    await manager.dispatch_many([MailBefore(to=str(n)) for n in range(3)])
    await manager.dispatch(MailAfter(address="x"))
    bad = await dispatch_as(manager, client, "deploys:mail", '{"to": 7}')
    unknown = await dispatch_as(manager, client, "deploys:gone", "{}")
    damaged = await dispatch_as(manager, client, "deploys:gone", "{}")
    await client.set(manager.store.keys.of("job", damaged), "not JSON")
    newest = await dispatch_as(manager, client, "deploys:mail", "{}", 2)
    await client.set(manager.store.keys.of("job", newest), '{"v": 99}')
    report = await check(manager, BEFORE, workers=False)
    found = {(group.job_class, group.version, group.verdict): group for group in report.groups}
    mail = "deploys:mail"
    assert found[mail, 1, ""].counts == {"ready": 3}
    assert found[mail, 2, "written by version 2 of the class, this code has 1"].jobs == 1
    assert found["deploys:gone", 1, "no class has, or had, this name"].example == unknown
    [wrong] = [group for verdict, group in found.items() if "field 'to'" in verdict[2]]
    assert (wrong.example, wrong.counts) == (bad, {"scheduled": 1})
    assert found["", 0, "its envelope is damaged"].example == damaged
    assert found["", 0, "its envelope is of a newer version than this code reads"].example == newest
    assert (report.ok, report.seen, report.standing) == (False, 8, 8)
    assert sum(group.jobs for group in report.unrunnable) == 5


async def test_check_knows_aliases_and_upgrades(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    await manager.dispatch(MailBefore(to="x"))
    await dispatch_as(manager, client, "deploys:former", '{"to": "y"}')
    report = await check(manager, AFTER, workers=False)
    assert [(group.job_class, group.verdict) for group in report.groups] == [
        ("deploys:former", ""),
        ("deploys:mail", ""),
    ]
    assert report.spotless


class Sealed(Job, queue=QUEUE, name="deploys:sealed"):
    __qualname__ = "Sealed"
    secret: Encrypted[str]

    async def handle(self, ctx: JobContext) -> None: ...


class SealedAfter(Job, queue=QUEUE, name="deploys:sealed", version=2):
    __qualname__ = "Sealed"
    secret: Encrypted[str]

    async def handle(self, ctx: JobContext) -> None: ...

    @classmethod
    def upgrade(cls, payload: dict[str, Any], version: int) -> dict[str, Any]:
        raise ValueError(payload["secret"])


async def test_check_of_what_is_sealed(redis_url: str) -> None:
    """With the key it is judged, and never quoted; without, nobody can tell."""
    async with QueueManager(settings(redis_url, key("k1"))) as manager:
        job_id = await manager.dispatch(Sealed(secret="canary"))
        assert (await check(manager, registry(Sealed), workers=False)).spotless
        [group] = (await check(manager, registry(SealedAfter), workers=False)).unrunnable
        assert group.verdict.startswith("the payload does not fit deploys:sealed version 2")
        assert "canary" not in group.verdict
    async with QueueManager(redis_url) as manager:
        report = await check(manager, registry(Sealed), workers=False)
        assert (report.ok, report.spotless) == (True, False)
        assert report.groups[0].verdict.startswith("not read: ")
        assert report.groups[0].example == str(job_id)


async def test_check_looks_at_dead_letters_if_asked(manager: QueueManager, client: redis.asyncio.Redis) -> None:
    job_id = await dispatch_as(manager, client, "deploys:mail", '{"to": 7}')
    async with WorkerPool(CONFIG, manager, registry=BEFORE):
        with contextlib.suppress(JobError):
            await manager.wait(job_id, 20)
    assert (await check(manager, BEFORE, workers=False)).groups == []
    assert [group.counts for group in (await check(manager, BEFORE, workers=False, dead=True)).groups] == [{"dead": 1}]


async def test_check_asks_who_serves_the_queues(manager: QueueManager) -> None:
    await manager.dispatch(MailBefore(to="x")).on_queue("nobodys")
    alone = await check(manager, BEFORE)
    assert [(fault.where, fault.grave) for fault in alone.faults] == [("workers", True)]

    async def beats() -> bool:
        return bool(await manager.workers())

    async with WorkerPool(WorkerConfig(queues=["another"]), manager, registry=BEFORE):
        await until(beats, "the worker is known")
        report = await check(manager, BEFORE)
        elsewhere = await check(manager, BEFORE, queues=[QUEUE])
    assert [(fault.where, fault.what, fault.grave) for fault in report.faults] == [
        ("queue nobodys", "1 jobs stand there or will come there, and no live worker serves it", True),
        ("deploys:mail", "its queue 'deploys' is served by no live worker", False),
    ]
    assert not report.ok
    assert elsewhere.ok, "a warning only"


async def test_check_looks_at_what_is_to_come(manager: QueueManager) -> None:
    """Jobs of schedules, and callbacks of batches that are not over."""
    await manager.schedules.upsert("nightly", MailBefore(to="all"), cron="0 3 * * *")
    await manager.schedules.upsert("hourly", MailAfter(address="all"), every=3600)
    members = [MailBefore(to="a"), MailBefore(to="b")]
    batch = await Batch(members).then(MailAfter(address="boss")).catch(a_callback).dispatch(manager)
    report = await check(manager, BEFORE, workers=False)
    newer = "written by version 2 of the class, this code has 1"
    found = {
        (group.job_class, group.version, group.verdict): group for group in report.groups if "ready" not in group.counts
    }
    assert found["deploys:mail", 1, ""].counts == {"schedule": 1}
    assert found["deploys:mail", 2, newer].counts == {"schedule": 1, "callback": 1}
    assert found["rf_jobs:batch_callback", 1, "no class has, or had, this name"].example == f"batch {batch}"
    whole = registry(MailAfter, BatchCallback)
    assert (await check(manager, whole, workers=False)).ok
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(sys.modules[__name__], "a_callback")
        [gone] = (await check(manager, whole, workers=False)).unrunnable
    assert "a_callback is not known to this worker; import module" in gone.verdict
    assert (await check(manager, BEFORE, workers=False, queues=["another"])).groups == []


async def a_callback(batch: object) -> None:
    """Is never called."""


async def test_a_sample_is_spread_over_a_queue(manager: QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "PAGE", 10)
    await manager.dispatch_many([MailBefore(to=str(n)) for n in range(500)])
    looked: list[int] = []

    async def note(page: Any) -> list[str]:
        looked.extend(int(json.loads(bytes(job.letter.args))["to"]) for job in page)
        return [""] * len(page)

    steps: list[tuple[int, int]] = []
    found = await census.take(
        manager.store, [QUEUE], [State.READY], note, sample=50, seen=lambda *step: steps.append(step)
    )
    assert (found.seen, found.standing, found.complete) == (50, 500, False)
    assert (min(looked), max(looked)) == (0, 499)
    assert all(any(start <= n < start + 130 for n in looked) for start in range(0, 400, 130))
    assert steps[-1] == (50, 50)
    whole = await census.take(manager.store, [QUEUE], [State.READY], note, sample=None)
    assert (whole.seen, whole.complete) == (500, True)


# --- the command -------------------------------------------------------------------------------------------------------


CODE = """
    from rf_jobs import Job, JobContext

    class Mail(Job, name="deploys:mail", queue="deploys"):
        to: str

        async def handle(self, ctx: JobContext) -> None: ...
"""


@pytest.fixture
def command(redis_url: str, tmp_path: Path) -> Callable[..., Any]:
    """Runs ``rf-jobs`` in a folder with the modules ``fine``, ``faulty`` and ``doubled``; answers with code and output."""
    import subprocess

    (tmp_path / "fine.py").write_text(textwrap.dedent(CODE))
    faulty = CODE.replace('queue="deploys"', 'queue="deploys", backoff=lambda attempt, error: 1 / 0')
    (tmp_path / "faulty.py").write_text(textwrap.dedent(faulty))
    (tmp_path / "doubled.py").write_text(textwrap.dedent(CODE + CODE.replace("class Mail", "class Letter")))

    def run(*words: str) -> tuple[int, str]:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RF_JOBS_REDIS_URL": redis_url}
        done = subprocess.run(
            rf_jobs(*words), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


async def test_the_command(manager: QueueManager, client: redis.asyncio.Redis, command: Callable[..., Any]) -> None:
    await manager.dispatch(MailBefore(to="x"))
    code, said = command("check", "fine", "--no-workers")
    assert (code, "this code can run what waits" in said) == (0, True), said
    unknown = await dispatch_as(manager, client, "deploys:gone", "{}")
    code, said = command("check", "fine", "--no-workers", "--all")
    assert code == 1, said
    assert f"1 of them could not be run by this code, such as {unknown}" in said
    assert "no class has, or had, this name" in said
    code, said = command("check", "fine", "--json", "--dead", "--queues", QUEUE)
    shape = json.loads(said)
    assert (code, shape["status"], shape["jobs"]) == (1, "fail", {"seen": 2, "standing": 2})
    assert [(g["class"], g["status"]) for g in shape["groups"]] == [("deploys:gone", "fail"), ("deploys:mail", "ok")]
    assert [fault["where"] for fault in shape["faults"]] == ["workers"]


async def test_the_command_about_the_code_alone(manager: QueueManager, command: Callable[..., Any]) -> None:
    code, said = command("check", "faulty", "--no-workers")
    assert (code, "its backoff fails after attempt 1: ZeroDivisionError" in said) == (1, True), said
    code, said = command("check", "doubled")
    assert code == 2
    assert "two job classes have the name 'deploys:mail'" in said
    code, said = command("check", "missing")
    assert (code, "the module 'missing' was not found" in said) == (2, True)
    code, said = command("check", "fine")
    assert (code, "no worker is alive" in said) == (0, True), said
    assert command("check", "fine", "--strict")[0] == 1
    code, said = command("check", "fine", "--queues", "never-heard-of")
    assert (code, "no queue 'never-heard-of' has ever held a job" in said) == (4, True)


async def test_queues_and_workers_show_it(
    manager: QueueManager, client: redis.asyncio.Redis, command: Callable[..., Any]
) -> None:
    await dispatch_as(manager, client, "deploys:gone", "{}")

    async def beats() -> bool:
        return any(worker.catalog is not None and worker.last_beat for worker in await manager.workers())

    async with WorkerPool(CONFIG, manager, registry=AFTER):
        await in_state(manager, State.PARKED, 1)
        await until(beats, "the worker is known")
        _, queues = command("queues")
        shape = json.loads(command("queues", "--json")[1])["queues"][0]
        _, jobs = command("jobs", "list", "--state", "parked")
        _, workers = command("workers", "--classes")
        told = json.loads(command("workers", "--json")[1])["workers"][0]
    reason = "no worker knows the class deploys:gone"
    assert f"parked in deploys: 1 x gone version 1: {reason}" in queues
    assert shape["parked_classes"] == [{"class": "deploys:gone", "version": 1, "jobs": 1, "reason": reason}]
    assert reason in jobs
    assert "deploys:former, deploys:mail-long-ago" in workers
    assert told["classes"] == {"deploys:mail": 2, "deploys:renamed": 1}
