"""A transactional outbox for SQLAlchemy 2, on PostgreSQL and SQLite, for sync and async sessions::

    outbox = Outbox(Base.metadata)

    async with AsyncSession(engine) as session, session.begin():
        session.add(order)
        job_id = outbox.dispatch(session, SendReceipt(order=order.number))

The job runs if and only if the transaction commits. A relay moves it to the server: ``rf-jobs outbox shop.db:source`` for
``source = outbox.source(engine)``, or ``async with Relay(manager, source)``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    Executable,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_scoped_session
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session, registry, scoped_session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ColumnElement

from rf_jobs.client.outbox import NAME, Haul, InThread, OutboxSource, OutboxWriter, Waiting
from rf_jobs.client.pending import Pending
from rf_jobs.model.job import Job
from rf_jobs.words.errors import ConfigError, InvalidOption

DIALECTS = ("postgresql", "sqlite")
AnySession = Session | AsyncSession | Connection | scoped_session[Any] | async_scoped_session[Any]
_SESSIONS = (Session, AsyncSession, Connection, scoped_session, async_scoped_session)


class now_ms(ColumnElement[int]):  # noqa: N801 (named as the functions of SQL are)
    """The database's clock, as milliseconds since 1970; not the time at which the transaction began."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "postgresql")
def _postgresql(_: now_ms, __: SQLCompiler, **___: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


@compiles(now_ms, "sqlite")
def _sqlite(_: now_ms, __: SQLCompiler, **___: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER)"


class Outbox:
    """A table in ``metadata``, beside the application's own: ``metadata.create_all`` makes it, and Alembic's autogenerate
    finds it. ``table`` and ``schema`` say where it is."""

    def __init__(self, metadata: MetaData, *, table: str = NAME, schema: str | None = None) -> None:
        number = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts on in INTEGER columns alone
        self.table = Table(
            table,
            metadata,
            Column("seq", number, primary_key=True, autoincrement=True, comment="rows are relayed in this order"),
            Column("id", String(36), nullable=False, comment="the job's id"),
            Column("queue", String(128), nullable=False),
            Column("job_class", Text, nullable=False),
            Column("draft", LargeBinary, nullable=False, comment="the dispatch, as rf-jobs packs it"),
            Column("written_ms", BigInteger, nullable=False, default=now_ms()),
            Column("problem", Text, comment="why it cannot be relayed; such a row stays until somebody looks"),
            schema=schema,
            sqlite_autoincrement=True,
        )
        self.name = self.table.fullname
        self._row: Callable[..., object] = type("OutboxRow", (), {})
        registry(metadata=metadata).map_imperatively(self._row, self.table)
        self._writer = OutboxWriter(self.name)

    def dispatch(self, session: AnySession, job: Job | Pending[Any]) -> UUID:
        """Dispatch in the transaction of ``session``, which is not flushed here; answers with the job's id. Options go
        with the builder: ``outbox.dispatch(session, Queue.dispatch(job).delay(60))``; a delay counts from now.

        Raises ``SerializationError``, ``PayloadTooLarge`` or ``InvalidOption``; then nothing is written.
        """
        if not isinstance(session, _SESSIONS):
            hint = (
                "; use await connection.run_sync(outbox.dispatch, job)" if isinstance(session, AsyncConnection) else ""
            )
            raise InvalidOption(f"the outbox got the session {session!r}; give one of SQLAlchemy's sessions{hint}")
        job_id, row, written = self._writer.prepare(job)
        values = {"id": row.id, "queue": row.queue, "job_class": row.job_class, "draft": row.draft}
        if isinstance(session, Connection):
            session.execute(insert(self.table).values(**values))
        else:
            session.add(self._row(**values))
        written()
        return job_id

    def source(self, engine: Engine | AsyncEngine) -> OutboxSource:
        """What a relay empties. Raises ``ConfigError`` for a database that is neither PostgreSQL nor SQLite."""
        if not isinstance(engine, (Engine, AsyncEngine)):
            raise InvalidOption(
                f"the outbox got the engine {engine!r}; give what create_engine or create_async_engine made"
            )
        if engine.dialect.name not in DIALECTS:
            raise ConfigError(
                f"the outbox cannot be relayed from {engine.dialect.name}; it knows {' and '.join(DIALECTS)}"
            )
        statements = _Statements(self.table, engine.dialect.name)
        if isinstance(engine, AsyncEngine):
            return _AsyncRows(self.name, engine, statements)
        return InThread(_Rows(self.name, engine, statements))


class _Statements:
    """What is asked of the table."""

    def __init__(self, table: Table, dialect: str) -> None:
        self._table = table
        # SQLite has one lock for all, which the first write takes: before the first read, so that it reads what is so.
        self._locks_all = dialect == "sqlite"

    def something(self) -> Executable:
        """Whether anything waits."""
        return select(self._table.c.seq).where(self._table.c.problem.is_(None)).limit(1)

    def lock(self) -> Executable | None:
        """What must come before ``take``, if anything."""
        return delete(self._table).where(self._table.c.seq < 0) if self._locks_all else None

    def take(self, limit: int) -> Executable:
        c = self._table.c
        age = (now_ms() - c.written_ms).label("age")
        rows = select(c.seq, c.draft, age).where(c.problem.is_(None)).order_by(c.seq).limit(limit)
        return rows if self._locks_all else rows.with_for_update(skip_locked=True)

    def settle(self, haul: Haul) -> list[Executable]:
        """At the end of a transaction."""
        c = self._table.c
        ends: list[Executable] = [
            update(self._table).where(c.seq == seq).values(problem=why) for seq, why in haul.aside.items()
        ]
        if haul.delivered:
            ends.append(delete(self._table).where(c.seq.in_(haul.delivered)))
        return ends

    def measure(self, most: int) -> Executable:
        c = self._table.c
        some = select(c.written_ms).where(c.problem.is_(None)).order_by(c.seq).limit(most).subquery()
        return select(func.count(), func.coalesce(now_ms() - func.min(some.c.written_ms), 0)).select_from(some)


def _haul(rows: Sequence[Any]) -> Haul:
    return Haul(Waiting(seq, bytes(draft), max(0, age)) for seq, draft, age in rows)


class _Rows:
    """For an engine without a loop."""

    def __init__(self, name: str, engine: Engine, statements: _Statements) -> None:
        self.name = name
        self._engine = engine
        self._statements = statements

    @contextmanager
    def take(self, limit: int) -> Generator[Haul, None, None]:
        lock = self._statements.lock()
        if lock is not None and not self._something():
            yield Haul(())
            return
        with self._engine.begin() as connection:
            if lock is not None:
                connection.execute(lock)
            haul = _haul(connection.execute(self._statements.take(limit)).all())
            yield haul
            for statement in self._statements.settle(haul):
                connection.execute(statement)

    def _something(self) -> bool:
        with self._engine.connect() as connection:
            return connection.execute(self._statements.something()).first() is not None

    def measure(self, most: int) -> tuple[int, float]:
        with self._engine.connect() as connection:
            count, age = connection.execute(self._statements.measure(most)).one()
        return count, max(0, age) / 1000

    def close(self) -> None:
        """The engine is the application's."""


class _AsyncRows:
    """For an engine with a loop."""

    def __init__(self, name: str, engine: AsyncEngine, statements: _Statements) -> None:
        self.name = name
        self._engine = engine
        self._statements = statements

    @asynccontextmanager
    async def take(self, limit: int) -> AsyncGenerator[Haul, None]:
        lock = self._statements.lock()
        if lock is not None and not await self._something():
            yield Haul(())
            return
        async with self._engine.begin() as connection:
            if lock is not None:
                await connection.execute(lock)
            haul = _haul((await connection.execute(self._statements.take(limit))).all())
            yield haul
            for statement in self._statements.settle(haul):
                await connection.execute(statement)

    async def _something(self) -> bool:
        async with self._engine.connect() as connection:
            return (await connection.execute(self._statements.something())).first() is not None

    async def measure(self, most: int) -> tuple[int, float]:
        async with self._engine.connect() as connection:
            count, age = (await connection.execute(self._statements.measure(most))).one()
        return count, max(0, age) / 1000

    async def aclose(self) -> None:
        """The engine is the application's."""
