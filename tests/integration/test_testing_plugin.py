"""The fixtures that pytest finds, in a test session of somebody else."""

from __future__ import annotations

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support.processes import in_fresh_interpreter

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
# An editable environment that is older than the entry point does not know it yet.
PLUGIN = () if any(e.value == "pytest_rf_jobs" for e in entry_points(group="pytest11")) else ("-p", "pytest_rf_jobs")

SUITE = """
import pytest
from datetime import timedelta
from rf_jobs import Job, JobContext, Queue, QueueManager
from rf_jobs.testing import drain

class Greet(Job, queue="greetings", backoff=60):
    name: str
    async def handle(self, ctx: JobContext) -> str:
        if ctx.attempt == 1 and self.name == "Twice":
            raise ValueError("not yet")
        return f"Hello, {self.name}"

class Plain(Job):
    def handle(self, ctx: JobContext) -> int:
        return 1
"""

REAL = (
    SUITE
    + """
MARKS

async def test_a_real_server(rf_jobs_manager, rf_jobs_clock):
    handle = await Queue.dispatch(Greet(name="Twice")).delay(timedelta(days=1)).handle()
    assert await rf_jobs_manager.size("greetings") == 0
    assert (await drain(rf_jobs_manager)).attempts == 0
    rf_jobs_clock.advance(timedelta(days=1))
    assert (await drain(rf_jobs_manager)).retried == 1
    assert (await drain(rf_jobs_manager, with_scheduled=True)).completed == 1
    assert await handle.result(5) == "Hello, Twice"
    async with QueueManager() as another:
        assert await another.job(handle.id), "the environment names the server"

async def test_each_test_begins_with_nothing(rf_jobs_manager):
    assert await rf_jobs_manager.queues() == []
    await rf_jobs_manager.dispatch(Greet(name="you"))

async def test_whatever_their_order(rf_jobs_manager):
    assert await rf_jobs_manager.queues() == []
    await rf_jobs_manager.dispatch(Greet(name="you"))
"""
)

FAKES = (
    SUITE
    + """
def test_fake_without_a_loop(rf_jobs_fake_queue):
    Queue.dispatch(Greet(name="you")).sync()
    rf_jobs_fake_queue.assert_dispatched(Greet, name="you")

def test_inline_without_a_loop(rf_jobs_inline):
    assert rf_jobs_inline.ran(Queue.dispatch(Greet(name="Twice")).sync()).result == "Hello, Twice"
    assert rf_jobs_inline.ran(Queue.dispatch(Plain()).sync()).result == 1

def test_fakes_end_with_their_test(rf_jobs_fake_queue):
    rf_jobs_fake_queue.assert_nothing_dispatched()
"""
)


def suite(pytester: pytest.Pytester, text: str, mode: str = "", marks: str = "") -> None:
    asyncio = f"asyncio_mode = {mode}\nasyncio_default_fixture_loop_scope = function\n" if mode else ""
    pytester.makeini(f"[pytest]\nfilterwarnings = error\n{asyncio}")
    pytester.makepyfile(test_greetings=text.replace("MARKS", marks))


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:valkey", *PLUGIN, *arguments, timeout=90)


@pytest.mark.parametrize(
    ("mode", "marks"),
    [
        ("auto", ""),
        ("strict", "pytestmark = pytest.mark.asyncio"),
        ("strict", "pytestmark = pytest.mark.asyncio(loop_scope='session')"),
    ],
)
def test_a_real_server_with_pytest_asyncio(pytester: pytest.Pytester, mode: str, marks: str) -> None:
    suite(pytester, REAL, mode, marks)
    run(pytester, "-n0").assert_outcomes(passed=3)


def test_without_pytest_asyncio_anyio_does_it(pytester: pytest.Pytester) -> None:
    pytester.makeconftest("import pytest\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n")
    suite(pytester, REAL, marks="pytestmark = pytest.mark.anyio")
    run(pytester, "-n0", "-p", "no:asyncio").assert_outcomes(passed=3)


def test_stand_ins_need_no_loop_and_no_server(pytester: pytest.Pytester) -> None:
    suite(pytester, FAKES)
    run(pytester, "-n0", "-p", "no:asyncio").assert_outcomes(passed=3)


def test_several_workers_have_a_server_each(pytester: pytest.Pytester) -> None:
    suite(pytester, REAL, "auto")
    run(pytester, "-n2").assert_outcomes(passed=3)


def test_another_server_can_be_used(pytester: pytest.Pytester, redis_url: str) -> None:
    pytester.makeconftest(
        "import pytest\n"
        "@pytest.fixture(scope='session')\n"
        f"def rf_jobs_url(): return {redis_url!r}\n"
        "@pytest.fixture(scope='session')\n"
        "def rf_jobs_server(): raise AssertionError('nobody asked for it')\n"
    )
    suite(pytester, REAL, "auto")
    run(pytester, "-n0").assert_outcomes(passed=3)


def test_a_failure_points_at_the_test(pytester: pytest.Pytester) -> None:
    suite(
        pytester,
        SUITE + "\ndef test_it(rf_jobs_fake_queue):\n    rf_jobs_fake_queue.assert_dispatched(Greet, name='you')\n",
        "auto",
    )
    result = run(pytester, "-n0")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *AssertionError: Greet(name='you') was not dispatched; nothing was dispatched"])
    result.stdout.no_fnmatch_line("*asserting.py*")


def test_it_is_listed_and_can_be_switched_off(pytester: pytest.Pytester) -> None:
    suite(pytester, FAKES, "auto")
    shown = run(pytester, "--fixtures", "-n0").stdout.str()
    for name in ("server [session scope]", "url [session scope]", "manager", "clock", "fake_queue", "inline"):
        assert f"rf_jobs_{name}" in shown
    if not PLUGIN:
        assert "rf_jobs_inline" not in run(pytester, "--fixtures", "-n0", "-p", "no:rf_jobs").stdout.str()


def test_it_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["pytest11"] == {"rf_jobs": "pytest_rf_jobs"}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"pytest_rf_jobs.py": "pytest_rf_jobs.py"}
    assert (ROOT / "pytest_rf_jobs.py").is_file()


def test_pytest_loads_nothing_of_the_package_with_it() -> None:
    code = (
        "import sys, pytest_rf_jobs; print([m for m in sys.modules if m.startswith(('rf_jobs', 'redis', 'msgspec'))])"
    )
    assert in_fresh_interpreter(code) == "[]\n"
