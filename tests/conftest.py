"""What every test may ask for."""

from __future__ import annotations

import inspect
import logging
import signal
import threading
from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings
from xdist.remote import Producer  # type: ignore[import-untyped]
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from rf_jobs.store.embedded import EmbeddedServer
from tests.support import leaks
from tests.support.servers import ephemeral_server

# The machine is shared: how long an example takes says nothing.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("default")

# Under nohup it is ignored, and by whoever is started too: workers would rightly not restart on it.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


LIVE = ("tests/live/", "tests/chaos/", "tests/integration/test_demo.py")
"""Tests that start whole systems: one worker runs them, one after the other, while the other workers run the rest."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling | None:
    """``--dist loadgroup`` and its marks do nothing under pytest 9: xdist 3.8 writes the group to a node's id in vain. As
    the largest group they come first, so that no worker waits for them in the end."""
    return _LiveTogether(config, log) if config.getvalue("dist") == "load" else None


class _LiveTogether(LoadScopeScheduling):  # type: ignore[misc]  # xdist is not typed
    def _split_scope(self, nodeid: str) -> str:
        return "live" if nodeid.startswith(LIVE) else nodeid


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    """One server for each xdist worker; ask for ``redis_url`` unless the process itself matters."""
    with ephemeral_server() as running:
        yield running


@pytest.fixture(scope="session")
def _flusher(server: EmbeddedServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def redis_url(server: EmbeddedServer, _flusher: redis.Redis) -> Iterator[str]:
    """The URL of an empty server. At the end it may hold no key that nothing of ours would ever remove."""
    _flusher.flushall()
    yield server.url
    assert leaks.strays(_flusher) == []


@pytest.fixture(autouse=True)
def _no_task_left(request: pytest.FixtureRequest) -> None:
    """Coroutine tests alone: the others run no event loop, or end theirs."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("_tasks_end")


@pytest.fixture
async def _tasks_end() -> AsyncIterator[None]:
    yield
    left = await leaks.tasks_left()
    assert left == [], "these tasks go on after the test"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands run in this process set logging up for theirs; the next test must not meet their levels and handlers."""
    loggers = [logging.getLogger(name) for name in (None, "rf_jobs", "rf_jobs.lifecycle")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = [handler for handler in logger.handlers if handler in handlers]
