"""Databases for the outbox, and what its tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

import rf_jobs
from rf_jobs import QueueManager
from tests.contrib.shop import Base, outbox
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


@pytest.fixture
def engine(database: tuple[str, str]) -> Iterator[sa.Engine]:
    made = sa.create_engine(database[0])
    Base.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
async def manager(configured: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(configured) as made:
        yield made


@pytest.fixture(params=["sync", "async"])
async def source(request: pytest.FixtureRequest, database: tuple[str, str], engine: sa.Engine) -> AsyncIterator[Any]:
    async_engine = create_async_engine(database[1])
    made = outbox.source(engine if request.param == "sync" else async_engine)
    yield made
    await made.aclose()
    await async_engine.dispose()
