"""Deltas reach the store once, whatever happens on the way."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rf_jobs import Job, JobContext, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.model.jobclass import Registry
from rf_jobs.store import commands
from rf_jobs.store.calls import Call
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.redis import SyncStore
from rf_jobs.telemetry import names, telemetry
from rf_jobs.telemetry.cells import MetricStore
from rf_jobs.telemetry.exposition import read_flushed
from rf_jobs.telemetry.flush import MAX_REFUSALS, Flusher
from rf_jobs.telemetry.wiring import known_pairs
from rf_jobs.words.config_settings import JobsSettings, TelemetrySettings
from rf_jobs.words.errors import BackendError


class Flushed(Job, queue="flushed", max_attempts=1):
    fail: bool = False

    async def handle(self, ctx: JobContext) -> None:
        if self.fail:
            raise ValueError("no")


def settings(url: str, **telemetry_settings: Any) -> Settings:
    return Settings(jobs=JobsSettings(redis_url=url), telemetry=TelemetrySettings(**telemetry_settings))


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(settings(redis_url)) as connected:
        yield connected


async def stored(manager: QueueManager) -> dict[str, float]:
    return {k: float(v) for k, v in (await manager.store.run(manager.store.commands.metrics())).items()}


FIELD = '["jobs_retried_total","q","C"]'


def a_counter(cells: MetricStore) -> Any:
    return cells.counter(names.JOBS_RETRIED, "q", "C")


async def test_a_lost_reply_does_not_count_twice(manager: QueueManager, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = MetricStore()
    flusher = Flusher(manager.store, cells, "w1", 5.0)
    a_counter(cells).add(3)
    real = manager.store.run

    async def lose_the_reply(call: Call[Any], **options: Any) -> Any:
        await real(call, **options)
        raise BackendError("flush: no answer")

    monkeypatch.setattr(manager.store, "run", lose_the_reply)
    assert not await flusher.flush()
    a_counter(cells).add(4)
    assert not await flusher.flush()
    monkeypatch.setattr(manager.store, "run", real)
    assert await flusher.flush()
    assert (await stored(manager))[FIELD] == 7
    assert cells.counter(names.TELEMETRY_DROPPED, "delta").value == 0


async def test_two_processes_add_up_and_idle_ones_send_nothing(manager: QueueManager) -> None:
    for source in ("w1", "w2"):
        cells = MetricStore()
        flusher = Flusher(manager.store, cells, source, 5.0)
        a_counter(cells).add(5)
        assert await flusher.flush()
        calls: list[Any] = []
        manager.lifecycle.store.observer = lambda op, *_: calls.append(op)  # noqa: B023
        assert await flusher.flush()
        assert calls == []
    assert (await stored(manager))[FIELD] == 10


async def test_while_the_server_is_away_nothing_is_dropped(tmp_path: Path) -> None:
    cells = MetricStore()
    with EmbeddedServer.start(tmp_path) as server:
        manager = QueueManager(settings(server.url), retry_for=0)
        flusher = Flusher(manager.store, cells, "w1", 5.0)
        a_counter(cells).add(1)
        assert await flusher.flush()
    for _ in range(3):
        a_counter(cells).add(1)
        assert not await flusher.flush()
    with EmbeddedServer.start(tmp_path) as again:
        assert again.url == server.url
        assert await flusher.flush(patience=5.0)
        assert (await stored(manager))[FIELD] == 4
        assert cells.counter(names.TELEMETRY_DROPPED, "delta").value == 0
    a_counter(cells).add(1)
    await flusher.close(patience=0.0)
    assert cells.counter(names.TELEMETRY_DROPPED, "delta").value == 1, "the process ends: now it is lost"
    await manager.aclose()


async def test_what_the_server_refuses_for_good_is_given_up(manager: QueueManager) -> None:
    commands = manager.store.commands
    broken: Call[Any] = Call("admin", ("SET", commands.keys.of("metrics"), "no hash"), lambda r: r)
    await manager.store.run(broken)
    cells = MetricStore()
    flusher = Flusher(manager.store, cells, "w1", 5.0)
    a_counter(cells).add(1)
    for _ in range(MAX_REFUSALS):
        assert not await flusher.flush()
    assert cells.counter(names.TELEMETRY_DROPPED, "delta").value == 1
    mended: Call[Any] = Call("admin", ("DEL", commands.keys.of("metrics")), lambda r: r)
    await manager.store.run(mended)
    assert await flusher.flush()
    assert (await stored(manager))['["rf_telemetry_dropped_total","delta"]'] == 1


async def test_a_worker_leaves_all_it_counted(redis_url: str) -> None:
    wanted = settings(redis_url, flush_seconds=3600, tracing=False)
    async with QueueManager(wanted) as manager:
        pool = WorkerPool(WorkerConfig(queues=["flushed"]), manager)
        ended: asyncio.Queue[ev.Event] = asyncio.Queue()
        for kind in (ev.JobCompleted, ev.JobDied):
            manager.bus.subscribe(kind, ended.put_nowait)
        async with telemetry(manager, wanted.telemetry, pool=pool), pool:
            await manager.dispatch_many([Flushed(fail=n == 0) for n in range(10)])
            for _ in range(10):
                await asyncio.wait_for(ended.get(), 10)
        flushed = read_flushed(await stored(manager))
        found = {
            (reading.metric.name, *reading.values): reading.value or sum(reading.buckets.values())
            for reading in flushed.readings
        }
    name = Flushed.__job_class__.name
    assert found["jobs_dispatched_total", "flushed", name] == 10
    assert found["jobs_processed_total", "flushed", name, "success"] == 9
    assert found["jobs_processed_total", "flushed", name, "dead"] == 1
    assert found["jobs_processed_total", "flushed", name, "retry"] == 0
    assert found["jobs_failed_total", "flushed", name, "exception"] == 1
    assert found["worker_fetched_jobs_total",] == 10
    assert found["rf_redis_op_duration_seconds", "fetch"] > 0
    assert not [series for series in found if series[0] == "worker_slots"], "gauges are not flushed"


async def test_flushes_come_by_themselves(redis_url: str) -> None:
    wanted = settings(redis_url, flush_seconds=0.05, tracing=False)
    async with QueueManager(wanted) as manager, telemetry(manager, wanted.telemetry):
        flushed = asyncio.Event()

        def seen(done: ev.OperationDone) -> None:
            if done.op == "flush":
                flushed.set()

        manager.bus.subscribe(ev.OperationDone, seen)
        await manager.dispatch(Flushed())
        await asyncio.wait_for(flushed.wait(), 10)


async def test_metrics_can_be_off(redis_url: str) -> None:
    wanted = settings(redis_url, metrics=False, tracing=False)
    async with QueueManager(wanted) as manager, telemetry(manager, wanted.telemetry):
        await manager.dispatch(Flushed())
        assert await stored(manager) == {}


def test_classes_that_are_served_are_known() -> None:
    class Elsewhere(Job, queue="elsewhere"):
        async def handle(self, ctx: JobContext) -> None: ...

    class AtHome(Job):
        async def handle(self, ctx: JobContext) -> None: ...

    own = Registry()
    for each in (Elsewhere, AtHome):
        own.add(each.__job_class__)
    elsewhere, home = Elsewhere.__job_class__.name, AtHome.__job_class__.name
    assert known_pairs(own, "default", ("default",)) == [("default", home)]
    assert sorted(known_pairs(own, "default", ())) == sorted([("elsewhere", elsewhere), ("default", home)])


async def test_heartbeats_are_measured_like_all_other_round_trips(manager: QueueManager) -> None:
    """They are sent by a thread, and told of on the loop."""
    pool = WorkerPool(WorkerConfig(queues=["flushed"]), manager)
    told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def hear(event: ev.OperationDone) -> None:
        assert asyncio.get_running_loop() is loop
        told.put_nowait((event.op, event.error))

    manager.bus.subscribe(ev.OperationDone, hear)
    async with pool, asyncio.timeout(10):
        while await told.get() != ("extend", ""):
            pass


def test_the_failures_of_a_synchronous_store_are_told_too(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    store = SyncStore(f"unix://{tmp_path}/nobody.sock", retry_for=0.0)
    store.observer = lambda op, took, error: told.append((op, error))
    with pytest.raises(BackendError):
        store.run(store.commands.ping())
    store.close()
    assert told == [("read", "connection")]


def test_operations_are_those_of_the_table() -> None:
    source = (Path(commands.__file__)).read_text()
    named = set(re.findall(r'Call\(\s*"(\w+)"', source))
    assert {*named, "connect"} == set(names.REDIS_OPS)


async def test_the_cap_of_job_classes_is_a_setting(redis_url: str) -> None:
    wanted = settings(redis_url, max_job_classes=1, tracing=False)
    async with QueueManager(wanted) as manager:
        async with telemetry(manager, wanted.telemetry):
            for name in ("One", "Two"):
                manager.bus.emit(ev.JobDispatched("id", "q", name, "ready"))
        counted = {field for field in await stored(manager) if field.startswith('["jobs_dispatched_total","q"')}
    assert counted == {'["jobs_dispatched_total","q","_other"]'}, "the known classes of this process fill the cap"
