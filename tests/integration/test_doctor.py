"""The doctor: quick checks of server, workers and queues, and the deep walk over every job.

Each kind of damage is done by hand and must be named; a healthy store, however busy, must give no alarm.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from rf_jobs import Discard, Job, JobContext, QueueManager, Snooze, WorkerConfig, WorkerPool
from rf_jobs.core import doctor
from rf_jobs.core.doctor import Check, check_up, deep_check, worst
from rf_jobs.core.doctor_walk import Standing, judge
from rf_jobs.store.redis import AsyncStore
from tests.support.servers import ephemeral_server
from tests.support.waiting import until

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


snoozed: set[str] = set()


class DoctorJob(Job, name="doctor:Job", queue="ward", max_attempts=2, backoff=0.01):
    do: str = ""

    async def handle(self, ctx: JobContext) -> str | None:
        await ctx.progress(1, 2)
        if self.do == "fail":
            raise ValueError("ill")
        if self.do == "discard":
            raise Discard("enough")
        if self.do == "snooze" and ctx.id not in snoozed:
            snoozed.add(ctx.id)
            await ctx.checkpoint("snoozed")
            raise Snooze(0.01)
        if self.do == "dispatch":
            await ctx.manager.dispatch(DoctorJob(do="snooze"))
        return "well" if self.do == "result" else None


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as manager:
        yield manager


@pytest.fixture
def raw(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


async def problems(manager: QueueManager) -> list[str]:
    return (await deep_check(manager.store)).problems


async def a_bit_of_everything(manager: QueueManager) -> dict[str, str]:
    """A store with jobs in all states that have a way in; their ids by what became of them."""
    ids = {
        name: str(await manager.dispatch(DoctorJob(do=name))) for name in ("", "fail", "discard", "snooze", "result")
    }
    async with WorkerPool(WorkerConfig(queues=["ward"]), manager):
        for job_id in ids.values():
            await asyncio.gather(manager.wait(job_id, 20), return_exceptions=True)
    ids["cancelled"] = str(await manager.dispatch(DoctorJob()))
    await manager.cancel(ids["cancelled"])
    ids["leased"] = str(await manager.dispatch(DoctorJob()))
    (leased,) = await manager.pop_batch("ward", 1)
    await leased.extend()
    ids["ready"] = str(await manager.dispatch(DoctorJob()).priority("high"))
    ids["scheduled"] = str(await manager.dispatch(DoctorJob()).delay(60))
    return ids


# --- the deep walk: no false alarm --------------------------------------------------------------------------------


async def test_an_empty_store_is_in_order(manager: QueueManager) -> None:
    report = await deep_check(manager.store)
    assert report.ok
    assert report.complete
    assert (report.jobs, report.keys) == (0, 0)


async def test_jobs_in_all_states_are_in_order(manager: QueueManager) -> None:
    ids = await a_bit_of_everything(manager)
    report = await deep_check(manager.store)
    assert report.problems == []
    assert report.jobs == len(ids)
    assert report.suspected == report.unsettled == 0


async def test_nothing_is_changed(manager: QueueManager, raw: Any, redis_url: str) -> None:
    await a_bit_of_everything(manager)

    def content() -> dict[str, bytes]:
        client: Any = redis.Redis.from_url(redis_url)
        with client:
            return {key.decode(): client.dump(key) for key in client.keys("*")}

    before = content()
    await deep_check(manager.store)
    await check_up(manager.store)
    assert content() == before


async def test_a_replayed_and_a_forgotten_letter_are_in_order(manager: QueueManager) -> None:
    ids = await a_bit_of_everything(manager)
    assert await manager.retry_failed(ids["fail"])
    assert await problems(manager) == []
    assert await manager.clear("ward") > 0
    assert await problems(manager) == []


async def test_a_busy_store_gives_no_alarm(manager: QueueManager) -> None:
    kinds = ("", "fail", "discard", "snooze", "result", "dispatch")
    end = asyncio.Event()

    async def customers() -> None:
        while not end.is_set():
            await manager.dispatch_many([DoctorJob(do=kinds[n % len(kinds)]) for n in range(60)])
            if await manager.size("ward") > 2000:
                await asyncio.sleep(0.05)

    config = WorkerConfig(queues=["ward"], max_concurrent_jobs=20)
    async with WorkerPool(config, manager), QueueManager(manager.settings) as observer:
        task = asyncio.create_task(customers())
        try:
            for _ in range(5):
                report = await deep_check(observer.store)
                assert report.problems == []
                assert report.complete
        finally:
            end.set()
            await task
    assert await problems(manager) == []


async def test_the_walk_ends_at_its_limit(manager: QueueManager) -> None:
    await manager.dispatch_many([DoctorJob() for _ in range(5000)])
    report = await deep_check(manager.store, limit=100)
    assert not report.complete
    assert report.jobs < 1000
    assert report.problems == []
    whole = await deep_check(manager.store, limit=5000)
    assert whole.complete
    assert whole.jobs == 5000


async def test_the_walk_keeps_to_its_rate(manager: QueueManager) -> None:
    await manager.dispatch_many([DoctorJob() for _ in range(500)])
    report = await deep_check(manager.store, keys_per_second=5000)
    assert report.seconds > 0.2


# --- the deep walk: damage is named -------------------------------------------------------------------------------


DAMAGE: dict[str, tuple[list[tuple[str, ...]], str]] = {
    "a ghost": ([("DEL", "{rf}:job:<ready>")], "job <ready> is a ghost: it is ready on 'ward' and has no envelope"),
    "a lost job": ([("ZREM", "{rf}:ready:ward", "<ready>")], "job <ready> has an envelope but stands nowhere"),
    "a lost lease": (
        [("ZREM", "{rf}:running:ward", "<leased>")],
        "job <leased> has an envelope but stands nowhere (its meta says running)",
    ),
    "a double": (
        [("ZADD", "{rf}:later:ward", "1", "<ready>")],
        "job <ready> stands in 2 structures: scheduled on 'ward', ready on 'ward'",
    ),
    "a double in another queue": (
        [("ZADD", "{rf}:ready:mail", "1", "<ready>"), ("SADD", "{rf}:queues", "mail")],
        "job <ready> stands in 2 structures: ready on 'mail', ready on 'ward'",
    ),
    "another state": (
        [("HSET", "{rf}:meta:<fail>", "state", "ready")],
        "job <fail> is dead on 'ward', but its meta says ready",
    ),
    "another queue": (
        [("HSET", "{rf}:meta:<fail>", "queue", "mail")],
        "job <fail> is dead on 'ward', but its meta says queue 'mail'",
    ),
    "no token": ([("HDEL", "{rf}:meta:<leased>", "token")], "job <leased> runs on 'ward' without token"),
    "a used token": (
        [("HSET", "{rf}:meta:<leased>", "token", "!w.1")],
        "job <leased> runs on 'ward' without a token that is not used up",
    ),
    "a live token": (
        [("HSET", "{rf}:meta:<result>", "token", "w.1")],
        "job <result> is completed on 'ward' and its token w.1 was not used up",
    ),
    "no end": (
        [("HDEL", "{rf}:meta:<fail>", "finished")],
        "job <fail> is dead on 'ward' without the time at which it ended",
    ),
    "an early result": ([("SET", "{rf}:result:<ready>", "1")], "job <ready> is ready on 'ward' and has a result"),
    "leaked keys": (
        [("RPUSH", f"{{rf}}:errors:{ID}", "x"), ("SET", f"{{rf}}:progress:{ID}", "x")],
        f"job {ID} is gone, but these keys of it are left: errors, progress",
    ),
    "a leaked meta": (
        [("HSET", f"{{rf}}:meta:{ID}", "state", "ready")],
        f"job {ID} is gone, but these keys of it are left: meta",
    ),
    "a wrong ledger": (
        [("HINCRBY", "{rf}:ledger", "ward|dispatched", "3")],
        "queue 'ward': the ledger and the jobs disagree by 3",
    ),
    "an unlisted queue": (
        [("ZADD", "{rf}:ready:cellar", "1", ID)],
        "queue 'cellar' has jobs and is not in the set of queues",
    ),
    "a stranger": ([("SET", "{rf}:jbo:1", "x")], "the key '{rf}:jbo:1' belongs to nothing that this version knows"),
    "a leaked worker": (
        [("HSET", "{rf}:worker:w0", "nonce", "1")],
        "the key worker:w0 belongs to no live worker and will never go away",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damage_is_named(manager: QueueManager, raw: Any, kind: str) -> None:
    ids = await a_bit_of_everything(manager)

    def filled(text: str) -> str:
        for name, job_id in ids.items():
            text = text.replace(f"<{name}>", job_id)
        return text

    commands, expected = DAMAGE[kind]
    for command in commands:
        changed = raw.execute_command(*(filled(word) for word in command))
        assert changed or command[0] == "HSET", command
    found = await problems(manager)
    assert any(problem.startswith(filled(expected)) for problem in found), found
    raw.flushall()  # no test may leave such keys behind


def test_judging_needs_no_store() -> None:
    assert judge(Standing(ID)) == []
    assert judge(Standing(ID, (("ready", "q"),), has_envelope=True)) == []
    assert judge(Standing(ID, (("ready", "q"),), has_envelope=True, meta={"priority": "2"})) == []
    assert judge(Standing(ID, kept=("errors",))) != []
    assert judge(Standing(ID, (("running", "q"),), has_envelope=True)) != []


# --- quick checks -------------------------------------------------------------------------------------------------


async def checked(manager: QueueManager) -> dict[str, Check]:
    return {check.name: check for check in await check_up(manager.store)}


@pytest.fixture
def _any_latency_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """A round trip's time says nothing on a shared machine."""
    monkeypatch.setattr(doctor, "SLOW_MS", math.inf)


@pytest.mark.usefixtures("_any_latency_will_do")
async def test_a_healthy_system_has_nothing_to_mend(manager: QueueManager) -> None:
    async with WorkerPool(WorkerConfig(queues=["ward"]), manager):
        await manager.dispatch(DoctorJob()).result(10)
        await until(manager.workers, "the worker's first heartbeat has reached the server")
        checks = await checked(manager)
    wrong = {name: check for name, check in checks.items() if check.status != "ok"}
    assert list(wrong) == ["persistence"], wrong  # the tests' server keeps nothing
    assert worst(list(checks.values())) == "warn"
    assert "append-only file is off" in wrong["persistence"].what
    assert all(bool(check.todo) == (check.status != "ok") for check in checks.values())


async def test_waiting_jobs_without_a_worker_fail(manager: QueueManager) -> None:
    await manager.dispatch(DoctorJob())
    checks = await checked(manager)
    assert checks["workers"].status == "warn"
    assert checks["queues served"].status == "fail"
    assert "ward (1 ready)" in checks["queues served"].what
    assert "--queues ward" in checks["queues served"].todo


async def test_what_an_operator_has_to_look_at_is_named(manager: QueueManager, raw: Any) -> None:
    await a_bit_of_everything(manager)
    await manager.pause("ward")
    raw.zadd("{rf}:parked:ward", {ID: 1})
    raw.zadd("{rf}:workers", {"w0": 1})
    raw.hset("{rf}:worker:w0", mapping={"host": "h", "pid": "7", "queues": "ward", "beat": "1"})
    for job_id in raw.zrange("{rf}:running:ward", 0, -1):
        raw.zadd("{rf}:running:ward", {job_id: 1})
    raw.zadd("{rf}:ready:ward", {raw.zrange("{rf}:ready:ward", 0, 0)[0]: 512})
    checks = await checked(manager)
    found = {name: (check.status, check.what) for name, check in checks.items() if check.status != "ok"}
    assert found["paused queues"] == ("warn", "ward")
    assert found["parked jobs"] == ("warn", "1: 1 on ward")
    assert found["dead letters"] == ("warn", "1: 1 on ward")
    assert found["stale workers"] == ("warn", "1 fell silent without signing off: h:7")
    assert found["leases"][0] == "fail"
    assert found["leases"][1].endswith("1 on ward")
    assert found["queue age"][0] == "warn"
    assert found["ledger"] == ("fail", "the ledger and the jobs disagree: ward by 1")
    raw.delete("{rf}:worker:w0")


async def test_what_could_not_follow_from_a_jobs_end_is_named(manager: QueueManager, raw: Any) -> None:
    assert (await checked(manager))["consequences"].status == "ok"
    first = await manager.dispatch(DoctorJob())
    second = await manager.dispatch(DoctorJob()).on_queue("broken").depends_on(first)
    raw.set("{rf}:ready:broken", "not a sorted set")
    (leased,) = await manager.pop_batch("ward", 1)
    await leased.complete()
    raw.delete("{rf}:ready:broken")
    told = (await checked(manager))["consequences"]
    assert told.status == "fail"
    assert told.what.startswith("1 could not be drawn; the last one: ")
    assert str(second) in told.what or str(first) in told.what
    assert "WRONGTYPE" in told.what
    assert "explain" in told.todo


async def test_consequences_that_nobody_draws_are_told_of(manager: QueueManager, raw: Any) -> None:
    raw.rpush("{rf}:outbox", "[]", "[]")
    told = (await checked(manager))["consequences"]
    assert (told.status, told.what) == ("warn", "2 wait to be drawn, and no worker is alive to do it")


@pytest.mark.usefixtures("_any_latency_will_do")
async def test_the_servers_settings_are_judged() -> None:
    with ephemeral_server(extra_args=["--maxmemory-policy", "allkeys-lru"]) as server:
        with redis.Redis.from_url(server.url, decode_responses=True) as raw:
            raw.config_set("maxmemory", int(raw.info()["used_memory"]) + (2 << 20))
        store = AsyncStore(server.url, allow_eviction=True)
        try:
            checks = {check.name: check for check in await check_up(store)}
        finally:
            await store.aclose()
    assert checks["version"].status == "ok"
    assert checks["eviction"].status == "fail"
    assert "CONFIG SET maxmemory-policy noeviction" in checks["eviction"].todo
    assert "MiB used" in checks["memory"].what
    assert checks["latency"].status == "ok"


@pytest.mark.parametrize(("slow", "very_slow", "status"), [(0.0, math.inf, "warn"), (0.0, 0.0, "fail")])
async def test_a_slow_server_is_told_of(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch, slow: float, very_slow: float, status: str
) -> None:
    monkeypatch.setattr(doctor, "SLOW_MS", slow)
    monkeypatch.setattr(doctor, "VERY_SLOW_MS", very_slow)
    latency = (await checked(manager))["latency"]
    assert latency.status == status
    assert "a round trip takes" in latency.what
    assert "SLOWLOG GET" in latency.todo
