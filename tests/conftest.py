"""What every test may ask for."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, settings

from rf_jobs.store.embedded import EmbeddedServer
from tests.support.servers import ephemeral_server

# The machine is shared: how long an example takes says nothing.
settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    print_blob=True,
)
settings.load_profile("default")


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
def redis_url(server: EmbeddedServer, _flusher: redis.Redis) -> str:
    """The URL of an empty server."""
    _flusher.flushall()
    return server.url


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands run in this process set logging up for theirs; the next test must not meet their levels and handlers."""
    loggers = [logging.getLogger(name) for name in (None, "rf_jobs", "rf_jobs.lifecycle")]
    before = [(logger, logger.level, logger.handlers[:]) for logger in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = [handler for handler in logger.handlers if handler in handlers]
