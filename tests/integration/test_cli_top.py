"""``rf-jobs top`` on a real server, beside a real worker: as a page, as lines of JSON, and on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rf_jobs import QueueManager, Settings, WorkerConfig, WorkerPool
from rf_jobs.cli.app import app
from rf_jobs.sync import QueueManager as SyncManager
from rf_jobs.words.config_settings import JobsSettings
from tests.support.jobs import QUEUE, Add, Fails, Sleeps
from tests.support.processes import ROOT, rf_jobs, wait_until
from tests.support.servers import ephemeral_server

SOON = ("--interval", "0.2")
CONTROLLED = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Makes its standard input the terminal that Ctrl-C is typed at."""


def top(url: str, *args: str) -> Result:
    return CliRunner().invoke(app, ["top", "--redis-url", url, *SOON, *args])


def page(url: str, *args: str) -> list[str]:
    result = top(url, *args)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def seen(url: str) -> Any:
    result = top(url, "--once", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@contextmanager
def working(settings: Settings) -> Generator[SyncManager]:
    """A manager, with a worker on the queue of the tests."""
    stop, ready = threading.Event(), threading.Event()

    async def work() -> None:
        async with QueueManager(settings) as manager, WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            ready.set()
            await asyncio.to_thread(stop.wait)

    worker = threading.Thread(target=lambda: asyncio.run(work()))
    worker.start()
    assert ready.wait(20)
    try:
        with SyncManager(settings) as manager:
            yield manager
    finally:
        stop.set()
        worker.join()


@pytest.fixture
def manager(redis_url: str) -> Iterator[SyncManager]:
    with working(Settings(jobs=JobsSettings(redis_url=redis_url))) as one:
        yield one


@contextmanager
def dispatching(manager: SyncManager) -> Generator[None]:
    """Jobs come in all the while."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.01):
            manager.dispatch(Add(a=1, b=2)).sync()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def running(manager: SyncManager, seconds: float = 50) -> str:
    job_id = str(manager.dispatch(Sleeps(seconds=seconds)).sync())
    wait_until(lambda: manager.job(job_id).state == "running", "it runs")
    return job_id


# --- a page, and an object -------------------------------------------------------------------------------------------


def test_a_page_where_there_is_no_terminal(manager: SyncManager, redis_url: str) -> None:
    dead = manager.dispatch(Fails()).sync()
    job_id = running(manager)
    wait_until(lambda: manager.job(dead).state == "dead", "it is dead")
    manager.dispatch(Add(a=1, b=2)).on_queue("z").sync()
    manager.pause("z")
    wait_until(lambda: manager.workers()[0].busy == 1, "its worker says so too")
    lines = page(redis_url)
    assert re.fullmatch(rf"rf-jobs top: rf on {re.escape(redis_url)}, \d\d:\d\d:\d\d", lines[0])
    counts = "1 ready, 0 scheduled, 0 blocked, 0 parked, 1 running, 1 dead"
    assert lines[1] == f"2 queues: {counts}; in 0/s, done 0/s, failed 0/s"
    assert re.fullmatch(r"1 workers: 1 of 10 slots busy, \d+% used", lines[2])
    tables = "\n".join(lines[3:])
    late, other = re.findall(r"^(?:z|t) .*", tables, re.MULTILINE)
    assert re.fullmatch(r"z +1 +0 +0 +0 +0 +0 +[\d.]+ m?s +0 +0 +0  paused", late), "the latest queue comes first"
    assert re.fullmatch(r"t +0 +0 +0 +0 +1 +1 +- +0 +0 +0", other)
    assert re.search(rf"^{job_id}  Sleeps +t +1 +[\d.]+ m?s +w\w+$", tables, re.MULTILINE)
    assert re.search(rf"^w\w+ +\S+:{os.getpid()} +running +1/10 +\d+% +t +\d", tables, re.MULTILINE)
    manager.cancel(job_id)


def test_an_object(manager: SyncManager, redis_url: str) -> None:
    first, second = running(manager), running(manager)
    with dispatching(manager):
        look = seen(redis_url)
    assert 0.2 <= look["seconds"] < 20
    assert look["per_second"]["dispatched"] > 1
    assert look["per_second"]["completed"] > 1
    assert look["per_second"]["dead"] == look["per_second"]["retried"] == 0
    (queue,) = look["queues"]
    assert (queue["name"], queue["per_second"], queue["counts"]["running"] >= 2) == (QUEUE, look["per_second"], True)
    assert "parked_classes" not in queue
    (worker,) = look["workers"]
    assert (worker["slots"], worker["pid"]) == (look["slots"], os.getpid()) == (10, os.getpid())
    assert 0 <= look["utilization"] <= 1
    longest = look["longest_running"]
    assert [each["id"] for each in longest[:2]] == [first, second]
    assert longest[0]["running_seconds"] >= longest[1]["running_seconds"] > 0
    for job_id in (first, second):
        manager.cancel(job_id)


def test_the_few_that_have_run_longest(manager: SyncManager, redis_url: str) -> None:
    ids = [running(manager) for _ in range(7)]
    assert [each["id"] for each in seen(redis_url)["longest_running"]] == ids[:5]
    for job_id in ids:
        manager.cancel(job_id)


def test_failures_are_told(manager: SyncManager, redis_url: str) -> None:
    stop = threading.Event()

    def go_on() -> None:
        while not stop.wait(0.01):
            manager.dispatch(Fails()).sync()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        rates = seen(redis_url)["per_second"]
        line = page(redis_url)[1]
    finally:
        stop.set()
        thread.join()
    assert rates["retried"] > 0
    failed = re.search(r"failed ([\d.,]+)/s", line)
    assert failed is not None
    assert float(failed[1].replace(",", "")) > 0


def test_nothing_at_all(redis_url: str) -> None:
    lines = page(redis_url, "--once")
    assert lines[1].startswith("0 queues: 0 ready, ")
    assert lines[2:] == ["0 workers: none is alive; start one: rf-jobs worker MODULE"]
    look = seen(redis_url)
    assert (look["queues"], look["workers"], look["longest_running"], look["utilization"]) == ([], [], [], 0)


def test_queues_of_all_shards(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RF_JOBS_SHARDS", "4")
    places = {QUEUE: 3, "one": 1, "two": 2}
    with working(Settings(jobs=JobsSettings(redis_url=redis_url, shards=4, queue_shards=places))) as manager:
        monkeypatch.setenv("RF_JOBS_QUEUE_SHARDS", ",".join(f"{name}={shard}" for name, shard in places.items()))
        for name in ("one", "two"):
            manager.dispatch(Add(a=1, b=2)).on_queue(name).sync()
        job_id = running(manager)
        with dispatching(manager):
            look = seen(redis_url)
        assert {queue["name"] for queue in look["queues"]} == set(places)
        assert look["per_second"]["completed"] > 0
        assert look["longest_running"][0]["id"] == job_id
        assert [worker["queues"] for worker in look["workers"]] == [[QUEUE]]
        manager.cancel(job_id)


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["--interval", "0"], 2, "--interval is 0 s; give 0.1 s or more"),
        (["--interval", "soon"], 2, "'soon' is no duration"),
        (["--interval", "-1"], 2, "must lie between 0 and 100 years"),
        (["--redis-url", "redis://127.0.0.1:1/0"], 3, "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("once", [["--once"], []], ids=["once", "live"])
def test_what_cannot_be_done_is_said(redis_url: str, args: list[str], once: list[str], code: int, says: str) -> None:
    result = top(redis_url, *once, *args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr
    assert json.loads(top(redis_url, *once, *args, "--json").stdout)["error"]["exit_code"] == code


# --- lines of JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_an_object_for_each_look_until_it_is_ended(manager: SyncManager, redis_url: str, end: signal.Signals) -> None:
    command = rf_jobs("top", "--json", "--redis-url", redis_url, *SOON)
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    try:
        with dispatching(manager):
            looks = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(end)
        rest, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, errors) == (0, "")
    looks += [json.loads(line) for line in rest.splitlines()]
    assert all(look["seconds"] >= 0.2 and look["per_second"]["dispatched"] >= 0 for look in looks)
    assert looks[2]["per_second"]["completed"] > 0
    assert sorted(look["at"] for look in looks) == [look["at"] for look in looks]


def test_a_reader_that_goes_away(redis_url: str) -> None:
    command = " ".join(rf_jobs("top", "--json", "--redis-url", redis_url, *SOON))
    script = f"( {command}; echo $? >&2 ) | head -n 1"
    done = subprocess.run(["sh", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["queues"] == []
    assert done.stderr == "141\n"


# --- a terminal ------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal with ``rf-jobs top`` on it."""

    def __init__(self, folder: Path, *args: str, lines: int, term: str) -> None:
        self.ours, self._theirs = pty.openpty()
        fcntl.ioctl(self._theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, 200, 0, 0))
        self._before = termios.tcgetattr(self._theirs)
        env = {**os.environ, "TERM": term, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "exporters")])}
        env.pop("COLUMNS", None)
        env.pop("LINES", None)
        self.process = subprocess.Popen(
            [sys.executable, "-c", CONTROLLED, *rf_jobs("top", *args, *SOON)],
            cwd=folder, env=env, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, start_new_session=True,
        )  # fmt: skip
        self.output = ""

    def shows(self, pattern: str, timeout: float = 30) -> str:
        """The last page that was drawn, once it shows this."""
        give_up = time.monotonic() + timeout
        while True:
            drawn = self.page()
            if re.search(pattern, drawn, re.MULTILINE):
                return drawn
            assert time.monotonic() < give_up, f"{pattern!r} is not in {drawn!r}"
            assert self._read() or self.process.poll() is None, self.output

    def page(self) -> str:
        """What the last whole page was, without what moves the cursor and colours."""
        pages = [part.partition("\x1b[J")[0] for part in self.output.split("\x1b[H")[1:] if "\x1b[J" in part]
        return re.sub(r"\x1b\[[\d;]*[A-Za-z]|\r", "", pages[-1]) if pages else ""

    def _read(self) -> bool:
        if not select.select([self.ours], [], [], 0.2)[0]:
            return False
        self.output += os.read(self.ours, 1 << 16).decode(errors="replace")
        return True

    def rests(self) -> None:
        """Return when nothing has been drawn for several intervals: a look is under way that gets no answer."""
        while any(self._read() for _ in range(5)):
            pass

    def types(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def ends(self) -> int:
        """Its exit code; the terminal must be as it was."""
        wait_until(self._has_ended, "it ends")
        code = self.process.returncode
        while self._read():
            pass
        assert termios.tcgetattr(self._theirs) == self._before
        return code

    def _has_ended(self) -> bool:
        self._read()  # it restores the terminal when all that it wrote was read
        return self.process.poll() is not None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        os.close(self.ours)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*args: str, lines: int = 40, term: str = "xterm-256color") -> Terminal:
        opened.append(Terminal(tmp_path, *args, lines=lines, term=term))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.mark.parametrize("keys", [b"q", b"Q", b"\x03"], ids=["q", "Q", "ctrl-c"])
def test_a_live_page(manager: SyncManager, redis_url: str, terminal: Callable[..., Terminal], keys: bytes) -> None:
    shown = terminal("--redis-url", redis_url)
    assert "0 queues: 0 ready" in shown.shows("q ends it")
    job_id = running(manager)
    assert re.search(rf"^{job_id}  Sleeps", shown.shows(job_id), re.MULTILINE)
    with dispatching(manager):
        shown.shows(r"done [1-9][\d.,]*/s")
    manager.cancel(job_id)
    wait_until(lambda: manager.job(job_id).state == "cancelled", "it has stopped")
    shown.shows(r"\b0 running,")
    shown.types(b"xyz\x1b[A ")  # other keys do nothing
    shown.shows(r"in 0/s")
    shown.types(keys)
    assert shown.ends() == 0
    assert shown.output.startswith("\x1b[?1049h\x1b[?25l")
    assert shown.output.endswith("\x1b[?25h\x1b[?1049l"), "the screen and the cursor are back, and nothing is said"


def test_a_small_terminal(manager: SyncManager, redis_url: str, terminal: Callable[..., Terminal]) -> None:
    job_id = running(manager)
    for number in range(20):
        manager.dispatch(Add(a=1, b=2)).on_queue(f"q{number:02}").sync()
    shown = terminal("--redis-url", redis_url, lines=12)
    drawn = shown.shows(r"^\.\.\. and \d+ more").splitlines()
    assert len(drawn) <= 12
    assert drawn[5].startswith("q00"), "the latest first"
    shown.types(b"q")
    assert shown.ends() == 0
    large = terminal("--redis-url", redis_url, lines=60)
    assert "more" not in large.shows(job_id)
    large.types(b"q")
    assert large.ends() == 0
    manager.cancel(job_id)


def test_a_server_that_goes_away_and_comes_back(terminal: Callable[..., Terminal]) -> None:
    with ephemeral_server() as server:
        url = server.url
        shown = terminal("--redis-url", url)
        shown.shows("q ends it")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            stopped = time.monotonic()
            shown.shows("no answer: ", timeout=60)
            patience = time.monotonic() - stopped
        finally:
            os.kill(server.pid, signal.SIGCONT)
        shown.shows("q ends it")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            shown.rests()
            stopped = time.monotonic()
            shown.types(b"q")
            assert shown.ends() == 0
            assert time.monotonic() - stopped < patience / 2, "a look that gets no answer holds nobody up"
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_a_terminal_that_cannot_draw_gets_a_page(redis_url: str, terminal: Callable[..., Terminal]) -> None:
    shown = terminal("--redis-url", redis_url, term="dumb")
    assert shown.ends() == 0
    assert "\x1b[H" not in shown.output
    assert "0 queues: 0 ready" in shown.output
