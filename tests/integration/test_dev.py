"""``rf-jobs dev``: how it ends, and what its options reach."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from tests.support.living import kill_those_in, living_in
from tests.support.processes import fetch, process, rf_jobs, said, wait_until

JOBS = """
import asyncio
from rf_jobs import Job, JobContext

class Nap(Job, name="dev:Nap", queue="naps"):
    async def handle(self, ctx: JobContext) -> None:
        await asyncio.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "dev_jobs.py").write_text(JOBS)
    yield tmp_path
    kill_those_in(tmp_path)


def url_of(running: subprocess.Popen[bytes], log: Path) -> str:
    return said(running, log, r"export RF_JOBS_REDIS_URL=(\S+)")


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGHUP])
def test_nothing_is_left_when_it_is_gone_and_the_data_is_found_again(folder: Path, end: signal.Signals) -> None:
    command = rf_jobs(
        "dev", "dev_jobs", "--queues", "naps", "--port", "0", "--lease-seconds", "3", "--shutdown-timeout-seconds", "1"
    )
    with process(*command, log=folder / "log", cwd=folder) as dev:
        url = url_of(dev, folder / "log")
        said(dev, folder / "log", "serves naps")
        with redis.Redis.from_url(url) as client:
            client.set("kept", "1")
            client.execute_command("WAITAOF", 1, 0, 5000)
        dispatch = rf_jobs("dispatch", "Nap", "--import", "dev_jobs", "--redis-url", url)
        subprocess.run(dispatch, cwd=folder, check=True, timeout=60, stdout=subprocess.DEVNULL)
        dev.send_signal(end)
        code = dev.wait(30)
        assert code == (0 if end is signal.SIGHUP else -signal.SIGKILL)
        wait_until(lambda: not living_in(folder), "server, exporter and worker have ended", 40)
    with process(*rf_jobs("dev", "--no-exporter"), log=folder / "log", cwd=folder) as dev:
        assert url_of(dev, folder / "log") == url
        with redis.Redis.from_url(url) as client:
            assert client.get("kept") == b"1"
    assert not living_in(folder)


@pytest.mark.chaos
def test_a_terminal_that_closes_reaches_all_its_processes(folder: Path) -> None:
    command = rf_jobs("dev", "dev_jobs", "--queues", "naps", "--port", "0")
    with (folder / "log").open("wb") as log:
        dev = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    said(dev, folder / "log", "serves naps")
    os.killpg(dev.pid, signal.SIGHUP)
    assert dev.wait(30) == 0
    assert not living_in(folder)
    assert re.search(r"worker \w+ stopped", (folder / "log").read_text()), "the worker ended in order"


def test_its_options_reach_the_exporter(folder: Path) -> None:
    command = rf_jobs("dev", "--port", "0", "--metric-namespace", "shop", "--cache-seconds", "0", "--json")
    with process(*command, log=folder / "log", cwd=folder) as dev:
        page = said(dev, folder / "log", r'"metrics_url": "(\S+)"')
        assert "shop_worker_utilization" in fetch(page, 30)


@pytest.mark.chaos
@pytest.mark.parametrize("module", [[], ["dev_jobs"]])
def test_an_exporter_that_dies_is_noticed_and_started_again(folder: Path, module: list[str]) -> None:
    with process(*rf_jobs("dev", *module, "--port", "0"), log=folder / "log", cwd=folder) as dev:
        page = said(dev, folder / "log", r"metrics  (http://\S+/metrics)")
        [exporter] = [p for p in psutil.Process(dev.pid).children() if "exporter" in p.cmdline()]
        exporter.kill()
        said(dev, folder / "log", r"the exporter ended \(exit code -9\); it is started again in 0.5 s")
        wait_until(lambda: "worker_utilization" in fetch(page), "the same page is there again")
        dev.send_signal(signal.SIGINT)
        assert dev.wait(30) == 0
    assert (folder / "log").read_text().count("the exporter ended") == 1, "its end with dev is none of its own"


def test_a_taken_port_is_said_and_not_announced(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with process(*rf_jobs("dev", "--port", str(port)), log=folder / "log", cwd=folder) as dev:
            said(dev, folder / "log", "Ctrl-C ends it")
        text = (folder / "log").read_text()
    assert f"off (127.0.0.1:{port}: Address already in use; --port 0 takes any that is free)" in text
    assert f"http://127.0.0.1:{port}" not in text


def test_its_folder_is_private(folder: Path) -> None:
    with process(*rf_jobs("dev", "--no-exporter"), log=folder / "log", cwd=folder) as dev:
        url_of(dev, folder / "log")
        for path in [folder / ".rf-jobs", *(folder / ".rf-jobs").rglob("*")]:
            assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path


def test_its_variables_are_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from rf_jobs.cli.commands.dev import _variables
    from rf_jobs.words.config import load_settings

    given: dict[str, object] = {
        "jobs.telemetry.metrics": False,
        "jobs.telemetry.metric_namespace": "shop",
        "jobs.redis_url": "unix:///x",
        "jobs.worker.queues": "a,b",
        "jobs.exporter.port": None,
    }
    settings = load_settings(environ=_variables(given)).settings
    assert settings == load_settings(environ={}, overrides=given).settings
    assert json.dumps(settings.worker.queues) == '["a", "b"]'
