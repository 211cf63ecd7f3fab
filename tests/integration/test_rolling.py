"""Rolling restarts, quiet, and starts that fail, with real processes: what runs goes on, and nobody is missed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from tests.support.processes import process, rf_jobs
from tests.support.supervised import OFF, QUEUE, Stay, Supervised, Tell, deploy, never_fewer_slots, supervised
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert (await deep_check(running.store)).problems == []


@asynccontextmanager
async def stream(manager: QueueManager) -> AsyncGenerator[list[str]]:
    """Jobs all the time, a few at once; the versions that ran them, in the order in which they ended."""
    versions: list[str] = []

    async def one_after_the_other() -> None:
        while True:
            version, _, _ = await manager.dispatch(Tell()).result(30)
            versions.append(version)

    tasks = [asyncio.create_task(one_after_the_other()) for _ in range(6)]
    try:
        yield versions
    finally:
        failed = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert not failed


async def version(manager: QueueManager) -> str:
    """Which one runs a job now."""
    found, _, _ = await manager.dispatch(Tell()).result(30)
    return found


async def nothing_was_lost(manager: QueueManager) -> None:
    async def rests() -> bool:
        counts = await manager.counts(QUEUE)
        return counts["completed"] > 0 and not any(counts[state] for state in ("ready", "running", "scheduled"))

    await until(rests, "all jobs are done")
    [queue] = await manager.queues()
    for event in ("retried", "dead", "reclaimed", "cancelled"):
        assert queue.ledger.get(event, 0) == 0, event
    assert queue.ledger["dispatched"] == queue.ledger["completed"]


@pytest.mark.timeout(120)
async def test_a_deploy_under_load_loses_no_job_and_no_slot(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--processes", "2", "--max-concurrent-jobs", "3") as worker:
        first = {w.pid for w in await worker.workers("running", 2)}
        async with stream(manager) as versions, never_fewer_slots(manager, 6):
            for number, name in enumerate(("second", "the third"), 1):
                await until(lambda: _some(versions, 20), "jobs run")
                deploy(tmp_path, name)
                worker.signal(signal.SIGHUP)
                await worker.says(f"rolling restart {number} is done")
                versions.clear()
                await until(lambda: _some(versions, 20), "jobs run")
                assert set(versions[-6:]) == {name}
        last = {w.pid for w in await worker.workers("running", 2, but=first)}
        assert not first & last
        await nothing_was_lost(manager)
    assert "died" not in worker.log


async def _some(versions: list[str], count: int) -> bool:
    return len(versions) >= count


async def test_a_job_that_runs_outlasts_the_deploy(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path) as worker:
        [old] = await worker.workers("running")
        stays = await manager.dispatch(Stay(go=str(tmp_path / "go"))).handle()
        await until(lambda: _runs(manager), "the job runs")
        deploy(tmp_path, "second")
        worker.signal(signal.SIGHUP)
        await worker.says("rolling restart 1 is done")
        assert await version(manager) == "second"
        assert old.pid in {w.pid for w in await worker.workers("stopping")}
        (tmp_path / "go").touch()
        assert await stays.result(20) == "one"
        await until(lambda: _gone(manager, old.pid), "the old process has ended")
        await nothing_was_lost(manager)


async def _runs(manager: QueueManager) -> bool:
    """Not leased alone: what is in no slot yet is handed back."""
    return any(worker.busy for worker in await manager.workers())


async def _gone(manager: QueueManager, pid: int) -> bool:
    return pid not in {w.pid for w in await manager.workers()}


async def test_code_that_does_not_start_does_not_take_over(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--processes", "2", "--http-port", "0") as worker:
        first = {w.pid for w in await worker.workers("running", 2)}
        async with never_fewer_slots(manager, 20):
            deploy(tmp_path, "broken", before="raise RuntimeError('half a deploy')\n")
            worker.signal(signal.SIGHUP)
            await worker.says("rolling restart 1 is given up after 3 processes that did not start .*half a deploy")
            assert await version(manager) == "one"
            assert {w.pid for w in await worker.workers("running", 2)} == first
            assert await worker.page("/readyz") == "ok\n"
            deploy(tmp_path, "mended in haste")
            worker.signal(signal.SIGHUP)
            await worker.says("rolling restart 2 is done")
        assert await version(manager) == "mended in haste"


async def test_a_link_that_was_moved_is_followed(manager: QueueManager, tmp_path: Path) -> None:
    for name in ("one", "second"):
        (tmp_path / name).mkdir()
        deploy(tmp_path / name, name)
    current = tmp_path / "current"
    current.symlink_to("one")
    async with supervised(manager, tmp_path, here=current) as worker:
        await worker.workers("running")
        assert await version(manager) == "one"
        current.unlink()
        current.symlink_to("second")
        worker.signal(signal.SIGHUP)
        await worker.says("rolling restart 1 is done")
        assert await version(manager) == "second"


async def test_files_that_are_called_as_the_librarys_are_do_not_stop_a_child(
    manager: QueueManager, tmp_path: Path
) -> None:
    deploy(tmp_path, "one")
    for name in ("logging", "socket", "redis"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('an application has such files')\n")
    async with supervised(manager, tmp_path, "--http-port", "0", script=True) as worker:
        assert await version(manager) == "one"
        await worker.shows("/readyz", "^ok$")


async def test_quiet_takes_no_more_jobs_and_lets_run_what_runs(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--http-port", "0") as worker:
        await worker.workers("running")
        stays = await manager.dispatch(Stay(go=str(tmp_path / "go"))).handle()
        await until(lambda: _runs(manager), "the job runs")
        worker.signal(signal.SIGTSTP)
        [quiet] = await worker.workers("quiet")
        waits = await manager.dispatch(Tell()).handle()
        await worker.shows("/readyz", "worker process 0 is quiet")
        assert await worker.page("/healthz") == "ok\n"
        assert (await manager.counts(QUEUE))["ready"] == 1
        (tmp_path / "go").touch()
        assert await stays.result(20) == "one"
        assert (await waits.record()).state == "ready"
        assert {w.pid for w in await manager.workers()} == {quiet.pid}, "it stays"
        worker.signal(signal.SIGHUP)
        assert (await waits.result(20))[1] != quiet.pid


async def test_a_stop_that_reaches_all_processes_at_once_is_one_stop(manager: QueueManager, tmp_path: Path) -> None:
    """As systemd sends it to a service, or a container's init to a group."""
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--shutdown-timeout-seconds", "60") as worker:
        await worker.workers("running")
        stays = await manager.dispatch(Stay(go=str(tmp_path / "go"))).handle()
        await until(lambda: _runs(manager), "the job runs")
        supervisor = psutil.Process(worker.program.pid)
        for each in [*supervisor.children(recursive=True), supervisor]:
            each.terminate()
        await worker.workers("stopping")
        (tmp_path / "go").touch()
        assert await stays.result(20) == "one"
        assert await worker.ends() == 0
        record = await stays.record()
        assert (record.attempt, record.crashes) == (1, 0)
    assert "0 handed back" in worker.log


@pytest.mark.chaos
async def test_a_child_that_dies_while_all_are_quiet_is_not_replaced(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path) as worker:
        [child] = await worker.workers("running")
        worker.signal(signal.SIGTSTP)
        await worker.workers("quiet")
        os.kill(child.pid, signal.SIGKILL)
        await worker.says("died")
        worker.signal(signal.SIGHUP)
        await worker.workers("running", but={child.pid})
        assert worker.log.count("started worker process") == 2


# --- starts that fail --------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
async def test_children_that_never_begin_end_the_supervisor(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one", before="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    async with supervised(manager, tmp_path) as worker:
        assert await worker.ends() == 1
        why = "the last of 5 died at its start (signal SIGSEGV); mend that and run it again"
        assert f"error: no worker process could be started: {why}" in worker.log
        assert worker.log.count("started worker process") == 5, "it must not spin"
        pauses = [
            float(line.split("the next is in ")[1].split()[0]) for line in worker.log.splitlines() if "the next" in line
        ]
        assert pauses == sorted(pauses)
        assert pauses[0] <= 0.5
        assert 6.4 <= pauses[-1] <= 8.0


@pytest.mark.timeout(120)
async def test_once_one_has_run_the_supervisor_goes_on_trying(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    metered = {"RF_JOBS_TELEMETRY_TRACING": "false"}
    async with supervised(manager, tmp_path, "--http-port", "0", env=metered) as worker:
        [child] = await worker.workers("running")
        await worker.shows("/readyz", "^ok$")
        deploy(tmp_path, "broken", before="raise RuntimeError('half a deploy')\n")
        os.kill(child.pid, signal.SIGKILL)
        await worker.says("start 2 in a row that failed.*")
        await worker.shows("/readyz", "worker process 0 did not start: .*half a deploy; the next start is in")
        assert await worker.page("/healthz") == "ok\n"
        await worker.shows("/metrics", r'rf_supervisor_process_ends_total{reason="not_started"} [2-9]')
        assert 'rf_supervisor_processes{state="ready"} 0.0' in await worker.page("/metrics")
        deploy(tmp_path, "mended in haste")
        assert await version(manager) == "mended in haste"
        await worker.shows("/readyz", "^ok$")
        assert 'rf_supervisor_processes{state="ready"} 1.0' in await worker.page("/metrics")


async def test_a_terminal_that_closes_is_a_stop_and_no_restart(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    ours, theirs = pty.openpty()
    command = rf_jobs("worker", "told", "--queues", QUEUE, "--redis-url", manager.settings.jobs.redis_url)
    with process(*command, log=tmp_path / "log", env=OFF, cwd=tmp_path, stdin=theirs) as program:
        os.close(theirs)
        worker = Supervised(program, manager, tmp_path / "log")
        await worker.workers("running")
        worker.signal(signal.SIGHUP)
        await worker.says("rolling restart 1 is done")
        os.close(ours)
        worker.signal(signal.SIGHUP)
        assert await worker.ends() == 0
        assert "rolling restart 2" not in worker.log
