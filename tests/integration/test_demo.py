"""The main job, for a few seconds; and how it ends when it is not let."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rf_jobs.store.embedded import EmbeddedServer
from tests.support.living import kill_those_in, living_in
from tests.support.processes import process, rf_jobs, said, wait_until

pytestmark = pytest.mark.timeout(180)
BUSY = "the steady load begins"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Whatever happens, nothing that was started in it goes on."""
    yield tmp_path
    kill_those_in(tmp_path)


def all_end(folder: Path) -> bool:
    return wait_until(lambda: not living_in(folder), "all that the demo started has ended", 40)


def test_the_demo_keeps_its_promises(folder: Path) -> None:
    # Settings and tools of the surroundings are not its affair.
    (folder / "rf-jobs.toml").write_text('[jobs]\nimports = ["no_such_module_here"]\n')
    (folder / "tools").mkdir()
    surroundings = {
        "PATH": str(folder / "tools"),
        "RF_JOBS_NAMESPACE": "else",
        "RF_JOBS_REDIS_URL": "redis://127.0.0.1:1",
    }
    done = subprocess.run(
        rf_jobs("demo", "--seconds", "6", "--json"),
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        cwd=folder,
        env={**os.environ, **surroundings},
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    assert {name for name, row in summary["checks"].items() if not row["ok"]} == set()
    assert summary["states"]["completed"] == summary["dispatched"] == summary["completed"]
    assert summary["reclaimed"] >= 6
    assert summary["replayed"] == 1
    assert summary["retries"] > 0
    dispatched = summary["dispatched"]
    assert (
        f"the exporter counts {dispatched} dispatched, the ledger {dispatched}" in summary["checks"]["metrics"]["seen"]
    )
    assert "2 of 2 live workers serve" in summary["checks"]["metrics"]["seen"]
    assert "6 of them were taken back" in summary["checks"]["worker killed"]["seen"]
    assert not living_in(folder)
    for path in [folder / ".rf-jobs", *(folder / ".rf-jobs").rglob("*")]:
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o077, path


@pytest.mark.chaos
@pytest.mark.skipif(sys.platform != "linux", reason="PDEATHSIG is Linux's")
def test_a_killed_demo_leaves_nothing_behind_and_no_other_server_is_touched(folder: Path) -> None:
    with (
        EmbeddedServer.start(folder / ".rf-jobs" / "server", die_with_parent=True) as other,
        process(*rf_jobs("demo"), log=folder / "log", cwd=folder) as demo,
        redis.Redis.from_url(other.url) as client,
    ):
        client.set("mine", "1")
        said(demo, folder / "log", "killed a worker")
        assert len(living_in(folder)) > 5
        demo.kill()
        demo.wait()
        wait_until(lambda: living_in(folder) == [other.pid], "only the other server goes on", 40)
        assert client.get("mine") == b"1"
        client.delete("mine")


@pytest.mark.chaos
def test_hanging_up_ends_the_demo_in_order(folder: Path) -> None:
    with process(*rf_jobs("demo"), log=folder / "log", cwd=folder) as demo:
        said(demo, folder / "log", BUSY)
        demo.send_signal(signal.SIGHUP)
        assert demo.wait(60) == 1
    assert "Ctrl-C came first" in (folder / "log").read_text()
    assert "jobs completed in" in (folder / "log").read_text()
    assert not living_in(folder)


@pytest.mark.chaos
def test_the_second_ctrl_c_aborts_the_demo(folder: Path) -> None:
    with process(*rf_jobs("demo"), log=folder / "log", cwd=folder) as demo:
        said(demo, folder / "log", "killed a worker")  # its jobs come back seconds later, and take seconds then
        demo.send_signal(signal.SIGINT)
        said(demo, folder / "log", "again, and it ends without a summary")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(15) == 130
    assert "jobs completed in" not in (folder / "log").read_text()
    all_end(folder)


def test_one_demo_in_a_folder_at_a_time(folder: Path) -> None:
    with process(*rf_jobs("demo"), log=folder / "log", cwd=folder) as demo:
        said(demo, folder / "log", BUSY)
        again = subprocess.run(
            rf_jobs("demo", "--json"), capture_output=True, text=True, timeout=60, check=False, cwd=folder
        )
        assert again.returncode == 3
        assert "a demo runs in" in json.loads(again.stdout)["error"]["message"]
        assert demo.poll() is None
    assert not living_in(folder)
