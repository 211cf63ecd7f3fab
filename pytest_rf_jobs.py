"""The fixtures of ``rf_jobs.testing`` for pytest; docs/guides/testing.md shows them.

A module beside the package, since pytest imports it at each start wherever rf-jobs is installed, and the package takes longer
to import than pytest itself. Nothing of it is imported before a fixture is asked for.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rf_jobs import QueueManager
    from rf_jobs.store.embedded import EmbeddedServer
    from rf_jobs.testing import Clock, FakeQueue, InlineQueue


@pytest.fixture(scope="session")
def rf_jobs_server() -> Iterator[EmbeddedServer]:
    """A real server of this test session's own (of each worker's under pytest-xdist); it keeps nothing and ends with it."""
    from rf_jobs.store.embedded import EmbeddedServer

    with EmbeddedServer.ephemeral() as server:
        yield server


@pytest.fixture(scope="session")
def rf_jobs_url(request: pytest.FixtureRequest) -> str:
    """The URL of the server to test with. Override it in a conftest.py to use another than the embedded one: each test
    that asks for ``rf_jobs_manager`` removes all keys of the namespace there."""
    server: EmbeddedServer = request.getfixturevalue("rf_jobs_server")
    return server.url


@contextlib.asynccontextmanager
async def _manager(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[QueueManager]:
    from rf_jobs import QueueManager
    from rf_jobs.client.queue import standing_in

    monkeypatch.setenv("RF_JOBS_REDIS_URL", url)
    manager = QueueManager(url)
    try:
        await manager.store.drop_namespace()
        await manager.store.connect()
        with standing_in(manager):
            yield manager
    finally:
        await manager.aclose()


def _fixture(mark: Callable[..., Any], **options: str) -> Any:
    """A fixture for the loop that ``mark`` runs it on; a function of its own, since marks are left on it."""

    async def manager(rf_jobs_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[QueueManager]:
        async with _manager(rf_jobs_url, monkeypatch) as found:
            yield found

    return mark(manager, **options)


# A manager belongs to an event loop, and pytest-asyncio has one for each scope: the test's decides.
if importlib.util.find_spec("pytest_asyncio"):
    import pytest_asyncio

    _rf_jobs_on_function = _fixture(pytest_asyncio.fixture, loop_scope="function")
    _rf_jobs_on_class = _fixture(pytest_asyncio.fixture, loop_scope="class")
    _rf_jobs_on_module = _fixture(pytest_asyncio.fixture, loop_scope="module")
    _rf_jobs_on_package = _fixture(pytest_asyncio.fixture, loop_scope="package")
    _rf_jobs_on_session = _fixture(pytest_asyncio.fixture, loop_scope="session")

_rf_jobs_on_any = _fixture(pytest.fixture)  # anyio's plugin takes pytest's own


@pytest.fixture
def rf_jobs_manager(request: pytest.FixtureRequest) -> QueueManager:
    """A manager on an empty namespace of the server. ``Queue`` uses it, and ``RF_JOBS_REDIS_URL`` names its server."""
    manager: QueueManager = request.getfixturevalue(f"_rf_jobs_on_{_loop_scope(request)}")
    return manager


def _loop_scope(request: pytest.FixtureRequest) -> str:
    if not request.config.pluginmanager.has_plugin("asyncio") or request.node.get_closest_marker("anyio"):
        return "any"
    marker = request.node.get_closest_marker("asyncio")
    asked = marker.kwargs.get("loop_scope") if marker is not None else None
    return asked or request.config.getini("asyncio_default_test_loop_scope") or "function"


@pytest.fixture
def rf_jobs_clock(rf_jobs_url: str) -> Iterator[Clock]:
    """The clock of the server, to be moved; it is now again after the test."""
    from rf_jobs.testing import Clock

    with Clock(rf_jobs_url) as clock:
        yield clock


@pytest.fixture
def rf_jobs_fake_queue() -> Iterator[FakeQueue]:
    """``Queue`` records what is dispatched, without a server."""
    from rf_jobs.testing import FakeQueue

    with FakeQueue() as queue:
        yield queue


@pytest.fixture
def rf_jobs_inline() -> Iterator[InlineQueue]:
    """``Queue`` runs what is dispatched at once, without a server."""
    from rf_jobs.testing import inline

    with inline() as queue:
        yield queue
