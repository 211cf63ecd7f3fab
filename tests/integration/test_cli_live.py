"""The commands that follow and stop jobs, while a worker runs them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rf_jobs import Job, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.cli.app import app
from rf_jobs.sync import QueueManager as SyncManager
from tests.support.jobs import QUEUE, Add, Fails, Sleeps
from tests.support.long_jobs import Waits
from tests.support.processes import wait_until
from tests.support.talkative import Deaf, Says, Ticks


class Cli:
    """Runs commands beside a worker."""

    def __init__(self, redis_url: str) -> None:
        self.url = redis_url
        self.manager = SyncManager(redis_url)

    def __call__(self, *args: str) -> Result:
        return CliRunner().invoke(app, [*args, "--redis-url", self.url])

    def json(self, *args: str, code: int = 0) -> Any:
        """The one document."""
        result = self(*args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def lines(self, *args: str) -> list[Any]:
        """An object a line."""
        return [json.loads(line) for line in self(*args, "--json").stdout.splitlines()]

    def dispatch(self, job: Job) -> str:
        return str(self.manager.dispatch(job).sync())

    def running(self, job_id: str) -> None:
        wait_until(lambda: self.manager.job(job_id).state == "running", "it runs")


@pytest.fixture
def cli(redis_url: str) -> Iterator[Cli]:
    stop, ready = threading.Event(), threading.Event()

    async def work() -> None:
        async with QueueManager(redis_url) as manager, WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            ready.set()
            await asyncio.to_thread(stop.wait)

    worker = threading.Thread(target=lambda: asyncio.run(work()))
    worker.start()
    assert ready.wait(20)
    one = Cli(redis_url)
    try:
        yield one
    finally:
        one.manager.close()
        stop.set()
        worker.join()


def test_a_log_is_shown(cli: Cli) -> None:
    job_id = cli.dispatch(Says(count=30))
    assert cli.manager.wait(job_id, 20) is None
    shown = cli("jobs", "logs", job_id).stdout.splitlines()
    assert len(shown) == 30
    assert shown[0].endswith("INFO    [1] line 0  number=0")
    assert [line["number"] for line in cli.json("jobs", "logs", job_id, "--limit", "2")["lines"]] == [29, 30]
    assert len(cli("jobs", "logs", job_id, "--limit", "2").stdout.splitlines()) == 2
    record = cli("jobs", "show", job_id).stdout
    assert "log, the last 20 of 30 lines; jobs logs shows all" in record
    assert "line 10  number=10" in record
    assert "line 9  number=9" not in record
    assert len(cli.json("jobs", "show", job_id)["log"]) == 30
    assert cli("jobs", "logs", "00000000-0000-7000-8000-000000000000").exit_code == 4
    assert cli("jobs", "logs", job_id, "--limit", "0").exit_code == 2


def test_a_log_is_followed_to_the_end(cli: Cli) -> None:
    job_id = cli.dispatch(Says(count=3))
    assert cli.manager.wait(job_id, 20) is None
    assert len(cli("jobs", "logs", job_id, "--follow").stdout.splitlines()) == 3
    assert [line["message"] for line in cli.lines("jobs", "logs", job_id, "-f", "--limit", "1")] == ["line 2"]


def test_a_job_is_watched(cli: Cli, tmp_path: Path) -> None:
    job_id = cli.dispatch(Says(count=2, fail=True))
    updates = cli.lines("jobs", "watch", job_id)
    assert [update["message"] for update in updates if update["kind"] == "log"] == ["line 0", "line 1"] * 2
    assert updates[-1] == {"kind": "state", "state": "completed", "attempt": 2, "at": updates[-1]["at"], "reason": ""}
    assert [update["message"] for update in updates if update["kind"] == "failure"] == ["no"]
    text = cli("jobs", "watch", job_id)
    assert text.exit_code == 0
    assert text.stdout.splitlines()[-1] == "is completed"
    assert "attempt 1 failed: ValueError: no" in text.stdout
    ticks = cli.dispatch(Ticks(count=4))
    assert "100 % (4 of 4)" in cli("jobs", "watch", ticks).stdout
    dead = cli("jobs", "watch", cli.dispatch(Fails()))
    assert dead.exit_code == 1
    assert dead.stdout.splitlines()[-1] == "is dead: exception"
    waits = cli.dispatch(Waits(folder=str(tmp_path)))
    late = cli("jobs", "watch", waits, "--timeout", "200ms")
    assert late.exit_code == 5
    assert f"job {waits} has not ended within 0.2 s; it goes on" in late.stderr
    (tmp_path / "go").touch()
    cli.manager.wait(waits, 20)


def test_a_running_job_is_cancelled_and_waited_for(cli: Cli) -> None:
    job_id = cli.dispatch(Sleeps(seconds=50))
    cli.running(job_id)
    result = cli("jobs", "cancel", job_id, "--wait", "20s")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{job_id}: cancelled (stopped after ")
    record = cli.json("jobs", "show", job_id)
    assert record["cancellation"]["stage"] == "stopped"
    assert record["cancellation"]["acknowledged_at"] is not None
    again = cli("jobs", "cancel", job_id)
    assert (again.exit_code, again.stdout) == (1, f"{job_id}: was over already (cancelled)\n")


def test_one_that_does_not_stop_is_not_called_cancelled(cli: Cli, tmp_path: Path) -> None:
    job_id = cli.dispatch(Deaf(folder=str(tmp_path)))
    cli.running(job_id)
    late = cli("jobs", "cancel", job_id, "--wait", "0.3")
    assert late.exit_code == 5
    assert "not all of them have stopped within 0.3 s; jobs show says how far each is" in late.stderr
    [told] = cli.json("jobs", "cancel", job_id)["jobs"]
    assert (told["cancelled"], told["state"], told["cancellation"]["stage"]) == (True, "running", "acknowledged")
    assert "told to stop; it goes on for now (acknowledged after" in cli("jobs", "cancel", job_id).stdout
    assert "asked to stop" in cli("jobs", "show", job_id).stdout
    (tmp_path / "go").touch()
    wait_until(lambda: cli.manager.job(job_id).state == "cancelled", "it has stopped")


def test_one_that_waits_is_cancelled_at_once(cli: Cli) -> None:
    job_id = str(cli.manager.dispatch(Add(a=1, b=2)).delay(60).sync())
    [told] = cli.json("jobs", "cancel", job_id, "--wait", "5s")["jobs"]
    assert (told["cancelled"], told["state"], told["cancellation"]["stage"]) == (True, "cancelled", "stopped")
