"""An application's tables with an outbox, in a module that child processes can import."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from rf_jobs.client.outbox import Haul
from rf_jobs.contrib.sqlalchemy import Outbox


class Base(DeclarativeBase):
    """All of them."""


class Order(Base):
    """What a job is dispatched with."""

    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(primary_key=True)


outbox = Outbox(Base.metadata)


class Deadly:
    """A source whose process is killed after its first push, before the rows are gone."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.name = source.name

    @asynccontextmanager
    async def take(self, limit: int) -> AsyncGenerator[Haul, None]:
        async with self._source.take(min(limit, 10)) as haul:
            yield haul
            if haul.rows:
                os.kill(os.getpid(), signal.SIGKILL)

    async def measure(self, most: int) -> tuple[int, float]:
        measured: tuple[int, float] = await self._source.measure(most)
        return measured

    async def aclose(self) -> None:
        await self._source.aclose()


if "RF_JOBS_TEST_DATABASE" in os.environ:
    source = outbox.source(create_async_engine(os.environ["RF_JOBS_TEST_DATABASE"]))
    deadly = Deadly(source)
