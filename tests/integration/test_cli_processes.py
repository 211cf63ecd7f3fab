"""The commands that run until they are told to stop, as real processes; and what only a process shows."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from rf_jobs.store.embedded import EmbeddedServer
from tests.support.processes import fetch, wait_until

JOBS = """
import sys
from rf_jobs import Job, JobContext

class Loaded(Job, name="loaded", queue="mail"):
    async def handle(self, ctx: JobContext) -> list[str]:
        ctx.log("looking", at="modules")
        heavy = ("rich", "aiohttp", "prometheus_client", "opentelemetry.sdk", "rf_jobs_exporter")
        return [name for name in heavy if name in sys.modules]
"""
QUIET = ("--no-metrics", "--no-tracing")
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "process_jobs.py").write_text(JOBS)
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts ``rf-jobs ...`` in the folder; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), str(Path.cwd() / "exporters")])}

    def run(*args: str, url: str | None = None) -> subprocess.Popen[str]:
        env = {**here, **({"RF_JOBS_REDIS_URL": url} if url else {})}
        command = [sys.executable, "-m", "rf_jobs", *args]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], words: str, *, stdout: bool = False) -> list[str]:
    """Lines up to the one that has these words in it. A process that does not say them within a minute is killed."""
    stream = process.stdout if stdout else process.stderr
    assert stream is not None
    lines = []
    too_late = threading.Timer(60, process.kill)
    too_late.start()
    try:
        for line in stream:
            lines.append(line)
            if words in line:
                return lines
    finally:
        too_late.cancel()
        too_late.join()
    raise AssertionError(f"it ended, or a minute passed, before it said {words!r}: {lines}")


def beaten(url: str, field: str, pattern: str) -> str:
    """What the only worker says of itself with its heartbeats, once it fits."""
    with redis.Redis.from_url(url, decode_responses=True) as client:

        def look() -> str:
            values = [str(client.hget(key, field) or "") for key in client.keys("{rf}:worker:w*")]
            return next((value for value in values if re.fullmatch(pattern, value)), "")

        return wait_until(look, f"a worker's {field} fits {pattern!r}")


def test_a_worker_runs_jobs_until_sigterm_and_loads_nothing_heavy(start: Start, redis_url: str) -> None:
    worker = start("worker", "process_jobs", "--queues", "mail", *QUIET, url=redis_url)
    read_until(worker, "serves mail with 10 slots")
    done = start("dispatch", "Loaded", "--import", "process_jobs", "--wait", "20", url=redis_url)
    output, _ = done.communicate(timeout=30)
    assert (done.returncode, json.loads(output)) == (0, [])
    beaten(redis_url, "state", "running")
    workers = start("workers", "--json", url=redis_url)
    output, _ = workers.communicate(timeout=30)
    (shown,) = json.loads(output)["workers"]
    assert (shown["queues"], shown["slots"], shown["state"]) == (["mail"], 10, "running")
    worker.send_signal(signal.SIGTERM)
    output, errors = worker.communicate(timeout=30)
    assert worker.returncode == 0
    assert output == ""
    assert "looking  at=modules" in errors


def test_a_worker_logs_json_when_asked(start: Start, redis_url: str) -> None:
    worker = start("worker", "process_jobs", "--queues", "mail", *QUIET, "--json", url=redis_url)
    read_until(worker, "serves mail")
    done = start("dispatch", "Loaded", "--import", "process_jobs", "--wait", "20", url=redis_url)
    done.communicate(timeout=30)
    worker.send_signal(signal.SIGINT)
    output, errors = worker.communicate(timeout=30)
    assert json.loads(output) == {"exit_code": 0}
    lines = [json.loads(line) for line in errors.splitlines()]
    (looked,) = [line for line in lines if line["message"] == "looking"]
    assert looked["fields"] == {"at": "modules"}
    assert looked["job"]["queue"] == "mail"


def test_a_worker_has_its_telemetry_wired(start: Start, redis_url: str) -> None:
    worker = start("worker", "process_jobs", "--queues", "mail", "--http-port", "0", url=redis_url)
    read_until(worker, "serves mail")
    done = start("dispatch", "Loaded", "--import", "process_jobs", "--wait", "20", url=redis_url)
    done.communicate(timeout=30)
    port = beaten(redis_url, "port", "[1-9].*")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        assert 'jobs_processed_total{job_class="loaded"' in reply.read().decode()
    worker.send_signal(signal.SIGTERM)
    worker.communicate(timeout=30)
    assert worker.returncode == 0


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ((), 2, "no job class is registered: no module was named; name the modules that define them"),
        (
            ("process_jobs", "--workers", "0"),
            2,
            "jobs.worker.workers is '0' (from argument); expected a whole number, at least 1",
        ),
        (("process_jobs", "--queues", "a b"), 2, "queue name is 'a b'"),
        (("process_jobs", "--http-port", "99999"), 2, "jobs.worker.http_port is '99999'"),
        (("process_jobs", "--wrokers", "2"), 2, "No such option"),
        (
            ("process_jobs", "--redis-url", "redis://127.0.0.1:1/0"),
            3,
            "no answer from the server at redis://127.0.0.1:1/0",
        ),
    ],
)
def test_a_worker_that_cannot_start_says_why(start: Start, args: tuple[str, ...], code: int, message: str) -> None:
    worker = start("worker", *args)
    output, errors = worker.communicate(timeout=30)
    assert worker.returncode == code
    assert output == ""
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("json", "error: no job class is registered: json defines none"),
        ("no_such_module_x", "error: the module 'no_such_module_x' was not found"),
        ("process_jobs.py", "error: 'process_jobs.py' is a path; name the module as an import does: process_jobs"),
    ],
)
def test_a_worker_whose_modules_are_wrong_says_why(start: Start, redis_url: str, module: str, message: str) -> None:
    worker = start("worker", module, url=redis_url)
    output, errors = worker.communicate(timeout=30)
    assert (worker.returncode, output) == (2, "")
    assert message in errors
    assert "Traceback" not in errors


def test_ctrl_c_is_an_exit_code_of_its_own(start: Start, redis_url: str) -> None:
    dispatched = start("dispatch", "Loaded", "--import", "process_jobs", url=redis_url)
    job_id = dispatched.communicate(timeout=30)[0].strip()
    waiting = start("jobs", "wait", job_id, url=redis_url)
    with redis.Redis.from_url(redis_url) as client:

        def at_rest() -> bool:
            others = [each for each in client.client_list() if int(each["id"]) != client.client_id()]
            return bool(client.sismember("{rf}:watched", job_id)) and all(int(each["idle"]) for each in others)

        wait_until(at_rest, "it waits for the job, and has asked nothing for a second")
    waiting.send_signal(signal.SIGINT)
    _, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors


def test_a_reader_that_goes_away_is_no_error(start: Start) -> None:
    listing = start("config", "--json")
    assert listing.stdout is not None
    listing.stdout.close()
    assert listing.stderr is not None
    errors = listing.stderr.read()
    listing.wait(30)
    assert (listing.returncode, errors) == (141, "")


def page_of(exporter: subprocess.Popen[str]) -> str:
    """The URL of the page that it serves."""
    return read_until(exporter, "metrics of")[-1].split()[-1]


def is_gone(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_an_exporter_serves_until_sigterm(start: Start, redis_url: str) -> None:
    start("dispatch", "Loaded", "--import", "process_jobs", url=redis_url).communicate(timeout=30)
    exporter = start("exporter", "--port", "0", url=redis_url)
    assert 'queue_depth{queue="mail",state="ready"} 1' in fetch(page_of(exporter), 30)
    exporter.send_signal(signal.SIGTERM)
    output, errors = exporter.communicate(timeout=30)
    assert (exporter.returncode, output) == (0, ""), errors


# --- dev ---------------------------------------------------------------------------------------------------------


def stop_server(folder: Path) -> None:
    """For the case that the test failed: the embedded server outlives its starter."""
    if (folder / ".rf-jobs" / "server").exists():
        EmbeddedServer.start(folder / ".rf-jobs" / "server").stop()


@pytest.fixture
def dev_folder(folder: Path) -> Iterator[Path]:
    yield folder
    stop_server(folder)


def test_dev_starts_a_server_and_a_worker_and_keeps_the_data(start: Start, dev_folder: Path) -> None:
    def run_dev() -> tuple[subprocess.Popen[str], str]:
        dev = start("dev", "process_jobs", "--queues", "mail", "--no-exporter", *QUIET)
        lines = read_until(dev, "Ctrl-C ends it", stdout=True)
        assert "for development only" in lines[0]
        (url,) = [line.split("RF_JOBS_REDIS_URL=")[1].strip() for line in lines if "RF_JOBS_REDIS_URL=" in line]
        read_until(dev, "serves mail")
        return dev, url

    dev, url = run_dev()
    done = start("dispatch", "Loaded", "--import", "process_jobs", "--wait", "20", url=url)
    output, errors = done.communicate(timeout=30)
    assert json.loads(output) == []
    job_id = errors.split()[0]
    dev.send_signal(signal.SIGINT)
    dev.communicate(timeout=30)
    assert dev.returncode == 0
    assert not Path(url.removeprefix("unix://")).exists(), "the server was started by dev, and ends with it"

    dev, again = run_dev()
    assert again == url
    shown = start("jobs", "show", job_id, "--json", url=url)
    assert json.loads(shown.communicate(timeout=30)[0])["state"] == "completed"
    dev.send_signal(signal.SIGTERM)
    dev.communicate(timeout=30)
    assert dev.returncode == 0


@pytest.mark.chaos
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_dev_takes_its_exporter_with_it(start: Start, dev_folder: Path, end: signal.Signals) -> None:
    dev = start("dev", "--port", "0")
    page = page_of(dev)
    assert "worker_utilization" in fetch(page, 30)
    dev.send_signal(end)
    dev.wait(30)
    wait_until(lambda: is_gone(urlsplit(page).port or 0), "the exporter has ended")


def test_dev_without_modules_is_a_server(start: Start, dev_folder: Path) -> None:
    dev = start("dev", "--no-exporter", "--json")
    shown = json.loads("".join(read_until(dev, "}", stdout=True)))
    assert shown["modules"] == []
    listed = start("queues", "--json", url=shown["redis_url"])
    assert json.loads(listed.communicate(timeout=30)[0])["total"] == 0
    dev.send_signal(signal.SIGINT)
    rest, _ = dev.communicate(timeout=30)
    assert (dev.returncode, rest) == (0, "")


def test_dev_checks_the_modules_before_it_starts_anything(start: Start, dev_folder: Path) -> None:
    dev = start("dev", "no_such_module_x")
    _, errors = dev.communicate(timeout=30)
    assert dev.returncode == 2
    assert "the module 'no_such_module_x' was not found" in errors
    assert not (dev_folder / ".rf-jobs").exists()


def test_dev_can_use_a_server_that_runs(start: Start, dev_folder: Path, redis_url: str) -> None:
    dev = start("dev", "process_jobs", "--queues", "mail", "--no-exporter", *QUIET, "--redis-url", redis_url)
    read_until(dev, "serves mail")
    dev.send_signal(signal.SIGINT)
    output, _ = dev.communicate(timeout=30)
    assert dev.returncode == 0
    assert "the server that --redis-url names" in output
    assert not (dev_folder / ".rf-jobs").exists()
