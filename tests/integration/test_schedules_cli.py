"""``rf-jobs schedules``, ``rf-jobs scheduler`` and ``rf-jobs worker --scheduler``."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rf_jobs import QueueManager
from rf_jobs.cli.app import app
from tests.support.processes import process, rf_jobs, said, wait_until
from tests.support.scheduled import QUEUE, STEPS

MODULE = "tests.support.scheduled"
QUIET = {"RF_JOBS_TELEMETRY_METRICS": "false", "RF_JOBS_TELEMETRY_TRACING": "false"}


class Cli:
    def __init__(self) -> None:
        self.runner = CliRunner()

    def __call__(self, *args: str) -> Result:
        return self.runner.invoke(app, ["schedules", *args])

    def ok(self, *args: str) -> str:
        result = self(*args)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *args: str, code: int = 0) -> Any:
        result = self(*args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    def add(self, name: str, *how: str) -> str:
        return self.ok("add", name, "Ticking", "name=x", "--import", MODULE, *how)


@pytest.fixture
def cli(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("RF_JOBS_REDIS_URL", redis_url)
    for name, value in QUIET.items():
        monkeypatch.setenv(name, value)
    return Cli()


def test_a_schedules_life(cli: Cli) -> None:
    assert cli.ok("list") == "there are no schedules\n"
    assert "a: next run" in cli.add("a", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--tag", "x")
    assert "a: as it was" in cli.add("a", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--tag", "x")
    cli.add(
        "b", "--every", "1h30m", "--jitter", "60", "--misfire", "all", "--grace", "5m", "--until", "2090-01-01T00:00Z"
    )
    listed = cli("list")
    assert "30 2 * * * (Europe/Berlin)" in listed.output
    assert "every 5400 s" in listed.output
    assert "no scheduler lives" in listed.output
    assert cli.ok("pause", "a", "b").splitlines() == ["a: paused", "b: paused"]
    assert cli.ok("pause", "a") == "a: was paused already\n"
    assert "it is paused" in cli.add("a", "--cron", "31 2 * * *")
    assert [each["state"] for each in cli.json("list")["schedules"]] == ["paused", "paused"]
    assert cli.json("resume", "a")["schedules"] == [{"name": "a", "changed": True}]
    job_id = cli.ok("trigger", "a").strip()
    assert cli.json("show", "a")["last_job"] == job_id
    shown = cli.ok("show", "b")
    assert "all, after 5 m" in shown
    assert "added at run time" in shown
    assert cli("remove", "a").exit_code == 2  # nobody to ask
    assert cli.ok("remove", "a", "b", "--yes").splitlines() == ["a: removed", "b: removed"]
    assert cli.json("list") == {"schedules": [], "total": 0, "schedulers": 0}


def test_pages(cli: Cli) -> None:
    for n in range(5):
        cli.add(f"s{n}", "--every", str(100 + n))
    page = cli.json("list", "--limit", "2", "--offset", "3")
    assert (len(page["schedules"]), page["total"]) == (2, 5)
    assert "4-5 of 5" in cli("list", "--limit", "2", "--offset", "3").output


@pytest.mark.parametrize(
    ("args", "code", "why"),
    [
        (("show", "nope"), 4, "there is no schedule 'nope'"),
        (("pause", "nope"), 4, "there is no schedule 'nope'"),
        (("remove", "nope", "--yes"), 4, "there is no schedule 'nope'"),
        (("add", "a", "Ticking", "name=x", "--cron", "0 25 * * *", "--import", MODULE), 2, "'25' at character 3"),
        (("add", "a", "Ticking", "name=x", "--import", MODULE), 2, "either a cron expression or an interval"),
        (("add", "a", "Ticking", "--every", "60", "--import", MODULE), 2, "name"),
        (("add", "a", "Nobody", "--every", "60", "--import", MODULE), 2, "no job class is called 'Nobody'"),
        (("add", "a b", "Ticking", "name=x", "--every", "60", "--import", MODULE), 2, "schedule name is 'a b'"),
        (
            ("add", "a", "Ticking", "name=x", "--cron", "@daily", "--timezone", "Paris", "--import", MODULE), 2,
            "did you mean Europe/Paris",
        ),
    ],
)  # fmt: skip
def test_bad_input(cli: Cli, args: tuple[str, ...], code: int, why: str) -> None:
    result = cli(*args)
    assert result.exit_code == code, result.output
    assert why in result.output
    assert why in cli.json(*args, code=code)["error"]["message"]


def test_the_scheduler_process(cli: Cli, redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with process(*rf_jobs("scheduler", MODULE), log=log, env={**QUIET, "RF_JOBS_REDIS_URL": redis_url}) as running:
        said(running, log, r"runs, with (\d) schedules")
        wait_until(lambda: cli.json("show", "fast-100")["fired"] > 2, "ticks of a schedule of the module")
        listed = cli.json("list")
        assert (listed["schedulers"], {each["name"] for each in listed["schedules"]}) == (1, {*STEPS, "nightly"})
        assert cli.json("show", "nightly")["timezone"] == "Europe/Berlin"
        assert "remove it there" in cli("remove", "nightly", "--yes").output
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 0
    assert "stopped" in log.read_text()
    assert cli.json("list")["schedulers"] == 0


def test_a_scheduler_that_cannot_start(redis_url: str, tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(
        "from tests.support.scheduled import Ticking\nfrom rf_jobs import Scheduler\n"
        "one = Scheduler()\none.every(9).job(Ticking(name='x'))\none.every(8).job(Ticking(name='x'))\n"
    )
    log = tmp_path / "log"
    env = {**QUIET, "RF_JOBS_REDIS_URL": redis_url}
    with process(*rf_jobs("scheduler", "twice"), log=log, env=env, cwd=tmp_path) as running:
        assert running.wait(30) == 2
    assert "two schedules are called 'Ticking'" in log.read_text()


def test_a_scheduler_inside_of_a_worker(cli: Cli, redis_url: str, tmp_path: Path) -> None:
    async def completed() -> int:
        async with QueueManager(redis_url) as manager:
            return (await manager.counts(QUEUE))["completed"]

    log = tmp_path / "log"
    command = rf_jobs("worker", MODULE, "--queues", QUEUE, "--processes", "2", "--scheduler")
    with process(*command, log=log, env={**QUIET, "RF_JOBS_REDIS_URL": redis_url}) as running:
        wait_until(lambda: asyncio.run(completed()) > 2, "jobs of ticks are completed")
        assert cli.json("list")["schedulers"] == 1  # of two processes one
        assert cli.json("show", "fast-100")["last_outcome"] == "completed"
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0


def test_dev_has_a_scheduler(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with process(
        *rf_jobs("dev", MODULE, "--no-exporter", "--queues", QUEUE, "--directory", str(tmp_path / "data")),
        log=log,
        env=QUIET,
    ) as running:
        assert said(running, log, r"scheduler \w+ runs, with (\d) schedules") == "4"
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 0


def test_a_worker_has_none_unless_told(cli: Cli, redis_url: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with process(
        *rf_jobs("worker", MODULE, "--queues", QUEUE), log=log, env={**QUIET, "RF_JOBS_REDIS_URL": redis_url}
    ) as running:
        said(running, log, "serves")
        assert cli.json("list") == {"schedules": [], "total": 0, "schedulers": 0}
