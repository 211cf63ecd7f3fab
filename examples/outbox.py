"""A transactional outbox: the order and its receipt are committed together, or neither is."""

import tempfile
from pathlib import Path

from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, Relay, WorkerPool
from rf_jobs.contrib.sqlalchemy import Outbox


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    number: Mapped[int] = mapped_column(primary_key=True)


outbox = Outbox(Base.metadata)  # a table beside the others: create_all and Alembic see it


class SendReceipt(Job):
    order: int

    async def handle(self, ctx: JobContext) -> str:
        return f"receipt for order {self.order}"


async def main(manager: QueueManager) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine = create_async_engine(f"sqlite+aiosqlite:///{Path(folder, 'shop.db')}")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

        async with AsyncSession(engine) as session:
            session.add(Order(number=1))
            job_id = outbox.dispatch(session, SendReceipt(order=1))  # its id is known, nothing is sent
            await session.commit()
            outbox.dispatch(session, SendReceipt(order=2))
            await session.rollback()  # nobody will ever hear of order 2

        # `rf-jobs outbox MODULE:SOURCE` goes on for ever, as does `async with Relay(...)`; this moves what is there.
        assert await Relay(manager, outbox.source(engine)).step() == 1
        async with WorkerPool(manager=manager):
            result = await manager.wait(job_id, timeout=10)
        await engine.dispose()
    print(result)
    assert result == "receipt for order 1"


if __name__ == "__main__":
    run(main)
