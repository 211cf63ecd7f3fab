"""The exporter against a real server, read with the tools that read it in production."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from rf_jobs import Job, JobContext, QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.model import events as ev
from rf_jobs.store.calls import Call
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.telemetry import names, telemetry
from rf_jobs.telemetry.names import metric_name
from rf_jobs.words.config_settings import ExporterSettings, JobsSettings, TelemetrySettings
from rf_jobs.words.errors import ConfigError
from rf_jobs.words.timing import mono, now_ms
from rf_jobs_exporter.app import COLLECTOR, create_app, serve
from rf_jobs_exporter.auth import is_loopback
from rf_jobs_exporter.collector import replication_lag
from rf_jobs_exporter.lease import LEASE_SECONDS
from tests.support.processes import fetch, process, rf_jobs, said
from tests.support.programs import program

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class Shown(Job, queue="shown", max_attempts=1):
    fail: bool = False

    async def handle(self, ctx: JobContext) -> None:
        if self.fail:
            raise ValueError("no")


class Page:
    """A scrape, as samples."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples: Samples = {
            (s.name, frozenset(s.labels.items())): s.value for f in classic(text) for s in f.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples[name, frozenset(labels.items())]

    def names(self) -> set[str]:
        return {name for name, _ in self.samples}


def settings(url: str, cache: float = 0.0, **telemetry_settings: Any) -> Settings:
    return Settings(
        jobs=JobsSettings(redis_url=url),
        telemetry=TelemetrySettings(tracing=False, **telemetry_settings),
        exporter=ExporterSettings(cache_seconds=cache),
    )


Client = TestClient[Any, Any]


@asynccontextmanager
async def exporter(wanted: Settings, token: str = "") -> AsyncGenerator[Client, None]:
    async with TestClient(TestServer(create_app(wanted, token=token))) as client:
        yield client


async def scrape(client: Client) -> Page:
    async with client.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return Page(await answer.text())


async def work(url: str, jobs: list[Shown], **telemetry_settings: Any) -> None:
    """Dispatch jobs and run them, in a worker with telemetry."""
    wanted = settings(url, **telemetry_settings)
    async with QueueManager(wanted) as manager:
        pool = WorkerPool(WorkerConfig(queues=["shown"], max_concurrent_jobs=4), manager)
        ended: asyncio.Queue[ev.Event] = asyncio.Queue()
        for kind in (ev.JobCompleted, ev.JobDied):
            manager.bus.subscribe(kind, ended.put_nowait)
        async with telemetry(manager, wanted.telemetry, pool=pool), pool:
            await manager.dispatch_many(jobs)
            for _ in jobs:
                await asyncio.wait_for(ended.get(), 10)


async def test_an_empty_store(redis_url: str) -> None:
    async with exporter(settings(redis_url)) as client:
        page = await scrape(client)
        async with client.get("/readyz") as ready:
            assert ready.status == 200
    assert page("rf_exporter_last_success_timestamp_seconds") > 0
    assert page("rf_exporter_collect_duration_seconds") > 0
    assert {page("rf_workers", state=state) for state in names.WORKER_STATES} == {0}
    assert {page("rf_exporter_collect_errors_total", stage=stage) for stage in names.COLLECT_STAGES} == {0}
    assert page("rf_redis_used_memory_bytes") > 0
    assert page("rf_redis_maxmemory_evicts") == 0
    assert page("worker_utilization") == 0
    assert page("rf_consequences_unsettled") == page("rf_consequences_skipped") == 0
    assert "process_resident_memory_bytes" in page.names()
    assert 'rf_build_info{python="' in page.text


async def test_what_a_fleet_did(redis_url: str) -> None:
    began = mono()
    for _ in range(2):
        await work(redis_url, [Shown(fail=n == 0) for n in range(5)])
    async with QueueManager(settings(redis_url)) as manager:
        await manager.dispatch_many([Shown(), Shown().__class__(), manager.dispatch(Shown()).delay(60)])
        await manager.pause("shown")
        await make_older(manager, ready=120_000, dead=3_600_000)
    async with exporter(settings(redis_url)) as client:
        page = await scrape(client)
    name = Shown.__job_class__.name
    both = {"queue": "shown", "job_class": name}
    assert page("jobs_processed_total", **both, outcome="success") == 8
    assert page("jobs_processed_total", **both, outcome="dead") == 2
    assert page("jobs_processed_total", **both, outcome="lost") == 0
    assert page("jobs_failed_total", **both, reason="exception") == 2
    assert page("jobs_dispatched_total", **both) == 10
    assert page("job_duration_seconds_count", **both) == 10
    assert page("job_duration_seconds_bucket", **both, le="+Inf") == 10
    assert page("job_attempts_bucket", **both, le="1.0") == 10
    depth = {state: page("queue_depth", queue="shown", state=state) for state in names.DEPTH_STATES}
    assert depth == {"ready": 2, "scheduled": 1, "blocked": 0, "parked": 0, "running": 0, "dead": 2}
    events = {event: page("queue_events_total", queue="shown", event=event) for event in names.EVENTS}
    assert events["dispatched"] == 13
    assert events["completed"] == 8
    assert events["dead"] == 2
    assert events["reclaimed"] == events["evicted"] == 0
    assert page("rf_ledger_imbalance_jobs", queue="shown") == 0
    assert page("queue_paused", queue="shown") == 1
    took = mono() - began + 1
    assert 120 <= page("queue_oldest_job_age_seconds", queue="shown") <= 120 + took
    assert 3600 <= page("rf_dead_letter_oldest_age_seconds", queue="shown") <= 3600 + took
    assert page("rf_queue_age_objective_seconds", queue="shown") == 300


async def make_older(manager: QueueManager, *, ready: int, dead: int) -> None:
    """As if all ready jobs and dead letters had been there so many ms longer."""
    client, keys = manager.store.client, manager.store.keys
    for family, by in (("ready", -ready * 512), ("dead", -dead)):
        key = keys.of(family, "shown")
        for job_id in await client.zrange(key, 0, -1):
            await client.execute_command("ZINCRBY", key, by, job_id)


async def test_the_fleets_workers(redis_url: str) -> None:
    wanted = settings(redis_url)
    async with QueueManager(wanted) as manager, exporter(wanted) as client:
        beats = [asyncio.Event() for _ in range(2)]
        pools = [WorkerPool(WorkerConfig(queues=["shown", "empty"], max_concurrent_jobs=4), manager) for _ in beats]
        for pool, beat in zip(pools, beats, strict=True):
            heard = pool.on_beat

            def hear(beaten: Any, unextended: int, heard: Any = heard, beat: asyncio.Event = beat) -> None:
                heard(beaten, unextended)
                beat.set()

            pool.on_beat = hear  # type: ignore[method-assign]
        async with pools[0], pools[1]:
            for beat in beats:
                await asyncio.wait_for(beat.wait(), 10)
            page = await scrape(client)
            assert pools[0]._beats is not None
            await asyncio.to_thread(pools[0]._beats.stop)  # a heartbeat would undo what follows
            key, before = manager.store.commands.keys.of("workers"), now_ms() - 60_000
            silent: Call[Any] = Call("admin", ("ZADD", key, before, pools[0].id), lambda r: r)
            await manager.store.run(silent)
            later = await scrape(client)
    assert page("rf_workers", state="running") == 2
    assert page("worker_slots", queue="shown") == page("worker_slots", queue="empty") == 8
    assert page("worker_busy_slots", queue="shown") == 0
    assert page("queue_depth", queue="empty", state="ready") == 0, (
        "a queue that is served is known before its first job"
    )
    assert later("rf_workers", state="stale") == 1
    assert later("rf_workers", state="running") == 1
    assert later("worker_slots", queue="shown") == 4


class Held(Job, queue="held"):
    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(60)


async def test_the_longest_run_is_seen_among_more_than_the_store_would_look_at(redis_url: str) -> None:
    wanted, count = settings(redis_url), 60
    async with QueueManager(wanted) as manager, exporter(wanted) as client:
        pool = WorkerPool(WorkerConfig(queues=["held"], max_concurrent_jobs=count, shutdown_timeout=0), manager)
        started: asyncio.Queue[ev.JobStarted] = asyncio.Queue()
        manager.bus.subscribe(ev.JobStarted, started.put_nowait)
        beat = asyncio.Event()
        pool.on_beat = lambda beaten, unextended: beat.set()  # type: ignore[method-assign]
        async with pool:
            first, *_ = await manager.dispatch_many([Held() for _ in range(count)])
            for _ in range(count):
                await asyncio.wait_for(started.get(), 10)
            young = await scrape(client)
            # As if it had started ten minutes ago, and its lease were the last to end.
            (old,) = [a for a in pool._engine._running if a.leased.id == str(first)]
            pool._table.start(old.place, old.deadline, old.began - 600)
            began, keys = mono(), manager.store.keys
            await manager.store.client.zadd(keys.of("running", "held"), {str(first): now_ms() + 3_600_000}, xx=True)
            for _ in range(2):
                beat.clear()
                await asyncio.wait_for(beat.wait(), 10)
            page = await scrape(client)
            infos = {info.name: info for info in await manager.queues()}
        over = await scrape(client)
    took = mono() - began + 60
    assert young("queue_oldest_running_seconds", queue="held") < 60
    assert 600 <= page("queue_oldest_running_seconds", queue="held") <= 600 + took
    assert infos["held"].oldest_running_seconds >= 600
    assert over("queue_oldest_running_seconds", queue="held") == 0


async def test_who_sends_no_such_heartbeats_has_its_leases_looked_at(redis_url: str) -> None:
    async with QueueManager(settings(redis_url)) as manager, exporter(settings(redis_url)) as client:
        await manager.dispatch(Shown())
        (leased,) = await manager.pop_batch("shown", 1)
        key = manager.store.keys.of("meta", str(leased.id))
        await manager.store.client.hset(key, "epoch", str(now_ms() - 90_000))
        page = await scrape(client)
        await manager.store.client.delete(key)
        await manager.store.client.set(key, "damaged")
        damaged = await scrape(client)
        await manager.store.client.delete(key)
    assert 90 <= page("queue_oldest_running_seconds", queue="shown") <= 150
    assert damaged("queue_oldest_running_seconds", queue="shown") == 0


async def test_one_of_two_exporters_shows_the_store_and_the_other_takes_over(redis_url: str, tmp_path: Path) -> None:
    """Killed it is missed once its lease is over, stopped it gives the lease up."""
    log = tmp_path / "exporter.log"
    await work(redis_url, [Shown()])
    with process(*rf_jobs("exporter", "--port", "0", "--redis-url", redis_url), log=log) as first:
        url = await asyncio.to_thread(said, first, log, r"metrics of .* on (http://\S+/metrics)")
        active = Page(await asyncio.to_thread(fetch, url))
        async with exporter(settings(redis_url)) as second:
            standing_by = await scrape(second)
            async with second.get("/readyz") as ready:
                assert ready.status == 200
            first.kill()
            await asyncio.to_thread(first.wait)
            still = await scrape(second)
            async with QueueManager(settings(redis_url)) as manager:
                key = manager.store.keys.of("exporter")
                assert 0 < await manager.store.client.pttl(key) <= LEASE_SECONDS * 1000
                await manager.store.client.pexpireat(key, 1)  # as if that time were over
            taken_over = await scrape(second)
        async with exporter(settings(redis_url)) as third:
            stopped = await scrape(third)
    assert [page("rf_exporter_active") for page in (active, standing_by, still, taken_over, stopped)] == [1, 0, 0, 1, 1]
    ours = {name for name in standing_by.names() if not name.startswith(("process_", "python_"))}
    assert ours == {"rf_exporter_active"}
    for page in (active, taken_over, stopped):
        assert page("queue_events_total", queue="shown", event="completed") == 1


async def test_how_much_memory_a_queue_takes(redis_url: str) -> None:
    async with QueueManager(settings(redis_url)) as manager, exporter(settings(redis_url)) as client:
        before = (await manager.store.run(manager.store.commands.info()))["used_memory"]
        await manager.dispatch_many([Shown() for _ in range(2_000)])
        after = (await manager.store.run(manager.store.commands.info()))["used_memory"]
        await manager.dispatch(Shown()).on_queue("small")
        page = await scrape(client)
    truth, found = after - before, page("rf_queue_memory_bytes", queue="shown")
    assert truth / 2 < found < truth * 2
    assert 0 < page("rf_queue_memory_bytes", queue="small") < 10_000


async def test_a_server_that_does_not_tell_sizes_is_read_all_the_same(tmp_path: Path) -> None:
    with EmbeddedServer.ephemeral() as server:
        async with QueueManager(settings(server.url)) as manager, exporter(settings(server.url)) as client:
            await manager.dispatch(Shown())
            await manager.store.client.execute_command("ACL", "SETUSER", "default", "-memory")
            page = await scrape(client)
            async with client.get("/readyz") as ready:
                assert ready.status == 200
    assert page("rf_exporter_collect_errors_total", stage="memory") == 1
    assert page("rf_exporter_last_success_timestamp_seconds") > 0
    assert page("queue_depth", queue="shown", state="ready") == 1
    assert "rf_queue_memory_bytes" not in page.names()


def test_how_far_replicas_are_behind() -> None:
    replica = {"ip": "x", "port": 1, "state": "online", "offset": 1}
    assert replication_lag({"role": "master", "connected_slaves": 0}) == 0
    assert replication_lag({"slave0": {**replica, "lag": 1}, "slave1": {**replica, "lag": 7}}) == 7
    assert replication_lag({"role": "slave", "slave_repl_offset": 5, "master_last_io_seconds_ago": 3}) == 3


async def test_both_formats_are_well_formed(redis_url: str, tmp_path: Path) -> None:
    await work(redis_url, [Shown(), Shown(fail=True)])
    async with QueueManager(settings(redis_url)) as manager:
        trace_id, name = "ab" * 16, Shown.__job_class__.name
        field = f'["job_duration_seconds","shown","{name}",0.005]'
        call = manager.store.commands.flush("test", 1, {field: 1.0}, {field: f'[0.004,"{trace_id}",1700000000.5]'})
        await manager.store.run(call)
        await manager.schedules.upsert("shown", Shown(), every=60)
        await manager.limits.set("shown", concurrency=1)
        ran: dict[Any, Any] = {"ran": 1, "succeeded": 1, "lag": 1}
        await manager.store.client.hset(manager.store.keys.of("schedule", "shown"), mapping=ran)
    async with exporter(settings(redis_url)) as client:
        text = (await scrape(client)).text
        async with client.get("/metrics", headers={"Accept": OPENMETRICS}) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            modern = await answer.text()
    families = {family.name: family for family in openmetrics(modern)}  # type: ignore[no-untyped-call]
    found = [s.exemplar for s in families["job_duration_seconds"].samples if s.exemplar]
    assert [(e.labels, e.value) for e in found] == [({"trace_id": trace_id}, 0.004)]
    checked = await asyncio.to_thread(
        subprocess.run,
        [program("promtool"), "check", "metrics"],
        input=text, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    complaints = [line for line in checked.stderr.splitlines() if not line.startswith(("process_", "python_"))]
    assert not [line for line in complaints if "error" in line.lower()], checked.stderr
    ours = {metric.name for metric in names.METRICS}
    assert {line.split()[0] for line in complaints} & ours <= {"job_attempts"}, checked.stderr
    shown = {family.name for family in classic(text)} | {f"{family.name}_total" for family in classic(text)}
    missing = {m.name for m in names.METRICS if m.source == "exporter"} - shown - {"rf_build_info"}
    assert not missing


async def test_a_namespace_renames_everything(redis_url: str) -> None:
    await work(redis_url, [Shown()])
    async with exporter(settings(redis_url, metric_namespace="shop")) as client:
        page = await scrape(client)
    ours = {name for name in page.names() if not name.startswith(("process_", "python_"))}
    assert all(name.startswith("shop_") for name in ours)
    assert metric_name(names.QUEUE_DEPTH, "shop") in ours


async def test_without_the_server_it_says_so_and_comes_back(tmp_path: Path) -> None:
    with EmbeddedServer.start(tmp_path) as server:
        url = server.url
    async with exporter(settings(url)) as client:
        page = await scrape(client)
        assert page("rf_exporter_last_success_timestamp_seconds") == 0
        assert {page("rf_exporter_collect_errors_total", stage=s) for s in names.COLLECT_STAGES} == {1}
        assert "queue_depth" not in page.names(), "what is not known is not shown"
        assert "process_resident_memory_bytes" in page.names()
        async with client.get("/readyz") as ready, client.get("/healthz") as healthy:
            assert (ready.status, healthy.status) == (503, 200)
            assert "survey: " in await ready.text()
        with EmbeddedServer.start(tmp_path) as again:
            assert again.url == url
            page = await scrape(client)
            assert page("rf_exporter_last_success_timestamp_seconds") > 0
            assert page("rf_exporter_collect_errors_total", stage="survey") == 2
            async with client.get("/readyz") as ready:
                assert ready.status == 200


async def test_one_broken_stage_leaves_the_others(redis_url: str) -> None:
    await work(redis_url, [Shown()])
    async with QueueManager(settings(redis_url)) as manager:
        key = manager.store.commands.keys.of("metrics")
        await manager.store.run_many([Call("admin", ("DEL", key), int), Call("admin", ("SET", key, "x"), bool)])
    async with exporter(settings(redis_url)) as client:
        page = await scrape(client)
        async with client.get("/readyz") as ready:
            assert ready.status == 503
    assert page("rf_exporter_collect_errors_total", stage="metrics") == 1
    assert page("queue_depth", queue="shown", state="ready") == 0
    assert page("rf_exporter_last_success_timestamp_seconds") == 0


async def test_an_evicting_server_is_told_of(tmp_path: Path) -> None:
    with EmbeddedServer.ephemeral(extra_args=["--maxmemory-policy", "allkeys-lru"]) as server:
        async with exporter(settings(server.url)) as client:
            page = await scrape(client)
    assert page("rf_redis_maxmemory_evicts") == 1
    assert page("rf_exporter_last_success_timestamp_seconds") > 0


async def test_scrapes_share_a_reading(redis_url: str) -> None:
    async with exporter(settings(redis_url, cache=60)) as client:
        pages = [await scrape(client) for _ in range(3)]
        collector = client.server.app[COLLECTOR]  # type: ignore[attr-defined]
        first = await collector.snapshot()
        assert await collector.snapshot() is first
    assert len({page("rf_exporter_last_success_timestamp_seconds") for page in pages}) == 1


async def test_the_cost_does_not_grow_with_the_jobs(redis_url: str) -> None:
    """As many commands, and as many bytes but for the digits, for many jobs as for one."""
    sizes = []
    async with QueueManager(settings(redis_url)) as manager, exporter(settings(redis_url)) as client:
        for count in (1, 2_000):
            await manager.dispatch_many([Shown() for _ in range(count)])
            before = (await manager.store.run(manager.store.commands.info()))["total_commands_processed"]
            page = await scrape(client)
            after = (await manager.store.run(manager.store.commands.info()))["total_commands_processed"]
            sizes.append((len(page.samples), after - before))
    assert sizes[0][0] == sizes[1][0]
    assert sizes[1][1] <= sizes[0][1] + 5


async def test_a_token_keeps_the_page_closed(redis_url: str) -> None:
    async with exporter(settings(redis_url), token="sesame") as client:
        for sent, status in (
            (None, 401),
            ("Bearer wrong", 401),
            ("sesame", 401),
            ("Bearer sesame", 200),
            ("\xff", 401),
        ):
            headers = {} if sent is None else {"Authorization": sent}
            async with client.get("/metrics", headers=headers) as answer:
                assert answer.status == status
        async with client.get("/healthz") as healthy, client.get("/") as index:
            assert (healthy.status, index.status) == (200, 401)


async def test_the_index(redis_url: str) -> None:
    async with exporter(settings(redis_url)) as client, client.get("/") as answer, client.head("/metrics") as head:
        assert "/metrics" in await answer.text()
        assert head.status == 200
        assert await head.read() == b""


async def test_it_serves_until_it_is_stopped(redis_url: str) -> None:
    stop, urls = asyncio.Event(), asyncio.Queue[str]()
    wanted = Settings(jobs=JobsSettings(redis_url=redis_url), exporter=ExporterSettings(port=0))
    task = asyncio.create_task(serve(wanted, stop, urls.put_nowait))
    url = await asyncio.wait_for(urls.get(), 10)
    async with ClientSession() as session, session.get(url) as answer:
        assert answer.status == 200
    port = int(url.removesuffix("/metrics").rpartition(":")[2])
    taken = Settings(jobs=JobsSettings(redis_url=redis_url), exporter=ExporterSettings(port=port))
    with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*choose another"):
        await serve(taken, asyncio.Event())
    stop.set()
    await asyncio.wait_for(task, 10)


def test_addresses() -> None:
    assert [is_loopback(h) for h in ("127.0.0.1", "::1", "[::1]", "localhost", "0.0.0.0", "::", "example.org")] == [
        True, True, True, True, False, False, False,
    ]  # fmt: skip
