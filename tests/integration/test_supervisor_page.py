"""One port for all processes: their metrics as one page, their probes, and what is left of those that have ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from tests.support.supervised import QUEUE, Supervised, Tell, deploy, supervised
from tests.support.waiting import until

METERED = {"RF_JOBS_TELEMETRY_TRACING": "false"}
Samples = dict[tuple[str, tuple[str, ...]], float]


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert (await deep_check(running.store)).problems == []


async def samples(worker: Supervised) -> Samples:
    """The page of metrics, read; no series may stand twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(await worker.page("/metrics")):
        for sample in family.samples:
            key = sample.name, tuple(sorted(f"{name}={value}" for name, value in sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def processed(found: Samples) -> float:
    """How many jobs the page says have succeeded."""
    return sum(
        value
        for (name, labels), value in found.items()
        if name == "jobs_processed_total" and "outcome=success" in labels
    )


async def adds_up(worker: Supervised, total: int) -> None:
    """Until the page has so many; a job's result is there a moment before its process counts it. Fails if it has more."""

    async def look() -> bool:
        found = processed(await samples(worker))
        assert found <= total
        return found == total

    await until(look, f"the page has {total} jobs")


async def run(manager: QueueManager, count: int) -> set[int]:
    """Run so many jobs; the pids that did."""
    handles = [await manager.dispatch(Tell()).handle() for _ in range(count)]
    return {(await handle.result(30))[1] for handle in handles}


async def test_one_page_adds_up_what_all_processes_did(manager: QueueManager, tmp_path: Path) -> None:
    gauge = "from prometheus_client import Counter\nCounter('shop_orders', 'Orders.', ['kind']).labels('new').inc(3)\n"
    deploy(tmp_path, "one", before=gauge)
    async with supervised(
        manager, tmp_path, "--processes", "2", "--max-concurrent-jobs", "3", "--http-port", "0", env=METERED
    ) as worker:
        pids = {w.pid for w in await worker.workers("running", 2)}
        ran, total = set[int](), 0
        while ran != pids:
            ran |= await run(manager, 20)
            total += 20
        await adds_up(worker, total)
        found = await samples(worker)
        assert found["job_duration_seconds_count", ("job_class=supervised:Tell", f"queue={QUEUE}")] == total

        async def slots() -> bool:
            return (await samples(worker)).get(("worker_slots", (f"queue={QUEUE}",))) == 6

        await until(slots, "the slots of both are added")
        found = await samples(worker)
        assert 0 <= found["worker_utilization", ()] <= 1
        for place in ("0", "1"):
            assert found["process_resident_memory_bytes", (f"process={place}",)] > 1e7
            assert found["shop_orders_total", ("kind=new", f"process={place}")] == 3
        for state in ("wanted", "alive", "ready"):
            assert found["rf_supervisor_processes", (f"state={state}",)] == 2
        assert sum(value for (name, _), value in found.items() if name == "rf_build_info") == 1
        page = await worker.page("/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert "jobs_processed" in {family.name for family in openmetrics(page)}  # type: ignore[no-untyped-call]


@pytest.mark.chaos
async def test_sums_never_fall_when_processes_end(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--max-jobs", "5", "--http-port", "0", env=METERED) as worker:
        [first] = await worker.workers("running")
        total, recycled = 0, 0.0
        while recycled < 4:
            await run(manager, 6)
            total += 6
            await adds_up(worker, total)
            recycled = (await samples(worker))["rf_supervisor_process_ends_total", ("reason=recycled",)]
        assert first.pid not in {w.pid for w in await manager.workers()}
        [last] = await worker.workers("running", but={first.pid})
        os.kill(last.pid, signal.SIGKILL)
        await worker.says("died")
        await worker.shows("/metrics", r'process_ends_total{reason="crashed"} 1')
        await adds_up(worker, total)


@pytest.mark.chaos
async def test_a_process_that_makes_no_progress_is_not_ready(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(
        manager, tmp_path, "--processes", "2", "--sleep-seconds", "0.2", "--http-port", "0", env=METERED
    ) as worker:
        await run(manager, 20)
        await adds_up(worker, 20)
        await worker.shows("/readyz", "^ok$")
        frozen = next(w for w in await worker.workers("running", 2))
        os.kill(frozen.pid, signal.SIGSTOP)
        try:
            await worker.shows("/readyz", r"^worker process [01] has had no answer to a fetch for \d+ s$")
            assert await worker.page("/healthz") == "ok\n"
            assert processed(await samples(worker)) == 20, "what it counted before is there"
        finally:
            os.kill(frozen.pid, signal.SIGCONT)
        await worker.shows("/readyz", "^ok$")


@pytest.mark.chaos
async def test_the_port_outlives_the_process_that_answers(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--http-port", "0", env=METERED) as worker:
        await worker.shows("/readyz", "^ok$")
        [front] = [p for p in psutil.Process(worker.program.pid).children() if "rf_jobs.cli.page" in p.cmdline()]
        front.kill()
        await worker.says("the process of metrics and probes ended")
        assert await worker.page("/healthz") == "ok\n", "the request waited for the next one"
        await worker.shows("/readyz", "^ok$")
        worker.signal(signal.SIGTERM)
        await worker.ends()
        await until(lambda: _ended(worker), "nobody is left")


async def _ended(worker: Supervised) -> bool:
    return not await asyncio.to_thread(psutil.pid_exists, worker.program.pid)


@pytest.mark.chaos
async def test_nobody_answers_for_a_supervisor_that_is_gone(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--http-port", "0", env=METERED) as worker:
        await worker.shows("/readyz", "^ok$")
        children = psutil.Process(worker.program.pid).children()
        assert len(children) == 2
        worker.program.kill()
        await asyncio.to_thread(worker.program.wait)

        async def gone() -> bool:
            return not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)

        await until(gone, "the page and the worker have ended")


async def test_a_taken_port_is_said_before_anything_starts(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--http-port", "0", env=METERED) as worker:
        await worker.workers("running")
        port = await worker.says(r"processes on http://\S+:(\d+)")
        (tmp_path / "other").mkdir()
        async with supervised(manager, tmp_path / "other", "--http-port", port, here=tmp_path) as second:
            assert await second.ends() == 1
            assert (
                f"error: the worker cannot serve its metrics on 127.0.0.1:{port}: Address already in use" in second.log
            )
            assert "started" not in second.log


async def test_probes_without_metrics(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--http-port", "0") as worker:
        await worker.shows("/readyz", "^ok$")
        assert await worker.page("/metrics") == "/metrics, /healthz or /readyz\n"
