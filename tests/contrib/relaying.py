"""What the tests of relays share."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.orm import Session

from rf_jobs import QueueManager, WorkerConfig
from tests.contrib.shop import outbox
from tests.support.jobs import QUEUE, Add


def write(engine: sa.Engine, count: int = 1, **how: Any) -> list[UUID]:
    with Session(engine) as session, session.begin():
        return [outbox.dispatch(session, Add(a=number, b=0)) for number in range(count)]


def rows(engine: sa.Engine) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(outbox.table).order_by(outbox.table.c.seq)).all())


async def dispatched(manager: QueueManager) -> int:
    """By the ledger, which is exact."""
    ledger = await manager.store.client.hgetall(manager.store.commands.keys.ledger)
    return int(ledger.get(f"{QUEUE}|dispatched".encode(), 0))


def worker() -> WorkerConfig:
    """Serves the queue of the tests' jobs."""
    return WorkerConfig.default().queues([QUEUE])
