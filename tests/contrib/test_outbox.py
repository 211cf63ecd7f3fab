"""The transactional outbox for SQLAlchemy, on PostgreSQL and SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from rf_jobs import JobsSettings, Queue, QueueManager, SerializationError, Settings, configure
from rf_jobs.words.errors import ConfigError, InvalidOption, PayloadTooLarge
from rf_jobs.worker.relay import Relay
from tests.contrib.shop import Base, Order, outbox
from tests.support.jobs import QUEUE, Add, Hook

pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def engine(database: tuple[str, str]) -> Iterator[sa.Engine]:
    made = sa.create_engine(database[0])
    Base.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
async def async_engine(database: tuple[str, str], engine: sa.Engine) -> AsyncIterator[Any]:
    made = create_async_engine(database[1])
    yield made
    await made.dispose()


@pytest.fixture
async def manager(configured: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(configured) as made:
        yield made


def waiting(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(outbox.table)) or 0


@pytest.fixture(params=["sync", "async"])
async def source(request: pytest.FixtureRequest, engine: sa.Engine, async_engine: Any) -> AsyncIterator[Any]:
    made = outbox.source(engine if request.param == "sync" else async_engine)
    yield made
    await made.aclose()


# --- in the transaction ----------------------------------------------------------------------------------------------


async def test_a_job_is_dispatched_once_its_transaction_is_committed(
    engine: sa.Engine, source: Any, manager: QueueManager
) -> None:
    relay = Relay(manager, source)
    with Session(engine) as session, session.begin():
        session.add(Order(number=1))
        job_id = outbox.dispatch(session, Add(a=1, b=2))
        assert isinstance(job_id, UUID)
        assert await manager.size(QUEUE) == 0
    assert await relay.step() == 1
    record = await manager.job(job_id)
    assert (record.state, record.queue) == ("ready", QUEUE)
    assert waiting(engine) == 0
    assert await relay.step() == 0
    assert await manager.size(QUEUE) == 1


async def test_what_is_rolled_back_never_runs(engine: sa.Engine, source: Any, manager: QueueManager) -> None:
    with pytest.raises(ZeroDivisionError), Session(engine) as session, session.begin():  # noqa: PT012
        outbox.dispatch(session, Add(a=1, b=2))
        session.flush()
        raise ZeroDivisionError
    with Session(engine) as session:
        outbox.dispatch(session, Add(a=1, b=2))
        session.flush()  # and it is never committed
    with Session(engine) as session, session.begin():
        with pytest.raises(ZeroDivisionError), session.begin_nested():  # noqa: PT012
            outbox.dispatch(session, Add(a=1, b=3))
            raise ZeroDivisionError
        kept = outbox.dispatch(session, Add(a=1, b=4))
    assert await Relay(manager, source).step() == 1
    assert await manager.size(QUEUE) == 1
    assert (await manager.job(kept)).state == "ready"


async def test_async_sessions(async_engine: Any, manager: QueueManager, engine: sa.Engine) -> None:
    async with AsyncSession(async_engine) as session, session.begin():
        job_id = outbox.dispatch(session, Add(a=1, b=2))
    async with AsyncSession(async_engine) as session:
        outbox.dispatch(session, Add(a=1, b=2))
        await session.flush()
        await session.rollback()
    async with async_engine.begin() as connection:
        second = await connection.run_sync(outbox.dispatch, Add(a=3, b=4))
    source = outbox.source(async_engine)
    assert await Relay(manager, source).step() == 2
    assert [(await manager.job(each)).state for each in (job_id, second)] == ["ready", "ready"]


def test_scoped_sessions_and_connections(engine: sa.Engine) -> None:
    session = scoped_session(sessionmaker(engine))
    outbox.dispatch(session, Add(a=1, b=2))
    session.commit()
    session.remove()
    with engine.begin() as connection:
        outbox.dispatch(connection, Add(a=1, b=2))
    assert waiting(engine) == 2


async def test_options_go_along_and_delays_count_from_the_dispatch(
    engine: sa.Engine, source: Any, manager: QueueManager
) -> None:
    with Session(engine) as session, session.begin():
        builder = Queue.dispatch(Add(a=1, b=2)).on_queue("other").delay(3600).priority("high").tags("x").max_attempts(7)
        late = outbox.dispatch(session, builder)
        soon = outbox.dispatch(session, Queue.dispatch(Add(a=1, b=2)).delay(60))
        gone = outbox.dispatch(session, Queue.dispatch(Add(a=1, b=2)).expires_in(60))
    with engine.begin() as connection:  # the relay was away for two minutes
        connection.execute(sa.update(outbox.table).values(written_ms=outbox.table.c.written_ms - 120_000))
    assert await Relay(manager, source).step() == 3
    record = await manager.job(late)
    assert (record.state, record.queue, record.priority, record.tags) == ("scheduled", "other", 2, ("x",))
    now = await manager.store.run(manager.store.commands.time())
    due = await manager.store.client.zscore(manager.store.commands.keys.of("later", "other"), str(late))
    assert due is not None
    assert 3_400_000 < due - now <= 3_480_000
    assert (await manager.job(soon)).state == "ready"
    assert await manager.store.client.hget(manager.store.commands.keys.of("meta", str(gone)), "exp") is not None


async def test_rows_are_relayed_in_their_order(engine: sa.Engine, source: Any, manager: QueueManager) -> None:
    ids = []
    for number in range(5):
        with Session(engine) as session, session.begin():
            ids += [outbox.dispatch(session, Add(a=number, b=each)) for each in range(4)]
    relay = Relay(manager, source, batch=3)
    while await relay.step():
        pass
    ready = await manager.store.client.zrange(manager.store.commands.keys.of("ready", QUEUE), 0, -1)
    assert [str(each, "ascii") for each in ready if isinstance(each, bytes)] == [str(each) for each in ids]


# --- bad input -------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused_at_once(engine: sa.Engine) -> None:
    with Session(engine) as session, session.begin():
        with pytest.raises(SerializationError, match="'a'"):
            outbox.dispatch(session, Add(a="one", b=2))  # type: ignore[arg-type]
        with pytest.raises(PayloadTooLarge):
            outbox.dispatch(session, Hook(path="x" * 2_000_000))
        with pytest.raises(InvalidOption, match="give an instance of a Job class"):
            outbox.dispatch(session, Add)  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="one of SQLAlchemy's sessions"):
            outbox.dispatch(engine, Add(a=1, b=2))  # type: ignore[arg-type]
        with pytest.raises(InvalidOption, match="give what create_engine"):
            outbox.source("sqlite://")  # type: ignore[arg-type]
    assert waiting(engine) == 0


async def test_an_async_connection_is_told_how(async_engine: Any) -> None:
    async with async_engine.begin() as connection:
        with pytest.raises(InvalidOption, match=r"connection\.run_sync\(outbox\.dispatch, job\)"):
            outbox.dispatch(connection, Add(a=1, b=2))


def test_another_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine("sqlite://")
    monkeypatch.setattr(engine.dialect, "name", "mysql")
    with pytest.raises(ConfigError, match="cannot be relayed from mysql; it knows postgresql and sqlite"):
        outbox.source(engine)


@pytest.mark.parametrize(
    ("options", "match"), [({"batch": 0}, "batch is 0"), ({"poll": 0}, "poll is 0"), ({"poll": -1}, "poll is -1")]
)
def test_a_relay_with_bad_options(options: dict[str, Any], match: str, configured: str) -> None:
    engine = sa.create_engine("sqlite://")
    with pytest.raises(InvalidOption, match=match):
        Relay(QueueManager(configured), outbox.source(engine), **options)
    with pytest.raises(InvalidOption, match="give the source of an outbox"):
        Relay(QueueManager(configured), outbox)  # type: ignore[arg-type]


# --- what else a dispatch may ask for ------------------------------------------------------------------------------------


async def test_unique_jobs_are_judged_when_they_are_relayed(
    engine: sa.Engine, source: Any, manager: QueueManager
) -> None:
    with Session(engine) as session, session.begin():
        first = outbox.dispatch(session, Queue.dispatch(Add(a=1, b=2)).unique_for(60))
        second = outbox.dispatch(session, Queue.dispatch(Add(a=1, b=2)).unique_for(60))
    assert first != second
    assert await Relay(manager, source).step() == 2
    assert await manager.size(QUEUE) == 1
    assert (await manager.job(first)).state == "ready"
    assert waiting(engine) == 0


async def test_large_payloads_are_offloaded_by_the_relay(engine: sa.Engine, configured: str, tmp_path: Path) -> None:
    jobs = JobsSettings(redis_url=configured, offload_above_bytes=1_000, offload_path=str(tmp_path / "large"))
    configure(Settings(jobs=jobs))
    with Session(engine) as session, session.begin():
        job_id = outbox.dispatch(session, Hook(path="x" * 5_000))
    async with QueueManager(Settings(jobs=jobs)) as manager:
        source = outbox.source(engine)
        assert await Relay(manager, source).step() == 1
        await source.aclose()
        assert list((tmp_path / "large").rglob("*")), "it is in the folder"
        [leased] = await manager.pop_batch(QUEUE, 1)
        assert leased.id == job_id
        assert leased.job == Hook(path="x" * 5_000)
        await leased.complete()
