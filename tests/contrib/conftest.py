"""Databases for the outbox, and what its tests share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

import rf_jobs
from tests.support import postgres
from tests.support.postgres import Postgres

_numbers = count()


@pytest.fixture(scope="session")
def pg_server() -> Iterator[Postgres]:
    """One for each xdist worker; ask for ``pg`` unless the server itself matters."""
    with postgres.server() as running:
        yield running


@pytest.fixture
def pg(pg_server: Postgres) -> Iterator[str]:
    """The name of an empty database."""
    name = f"t{next(_numbers)}"
    pg_server.create(name)
    yield name
    pg_server.drop(name)


@pytest.fixture(params=["postgresql", "sqlite"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URLs of one empty database: for a sync and for an async engine."""
    if request.param == "sqlite":
        path = tmp_path / "test.db"
        yield f"sqlite:///{path}", f"sqlite+aiosqlite:///{path}"
        return
    running: Postgres = request.getfixturevalue("pg_server")
    name: str = request.getfixturevalue("pg")
    yield running.url(name), running.url(name, "asyncpg")


@pytest.fixture
def configured(redis_url: str) -> Iterator[str]:
    """``Queue`` goes to the test's server."""
    rf_jobs.configure(redis_url)
    yield redis_url
    rf_jobs.configure(None)
