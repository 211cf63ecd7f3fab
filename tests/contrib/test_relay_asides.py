"""What a relay tells, and what becomes of rows that cannot be relayed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from rf_jobs import EventBus, Queue, QueueManager, Relay, configure, events
from rf_jobs.words.config_settings import JobsSettings, Settings
from tests.contrib.relaying import rows, write
from tests.contrib.shop import outbox
from tests.support.jobs import QUEUE, Add
from tests.support.servers import ephemeral_server
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("configured")


# --- what it tells ---------------------------------------------------------------------------------------------------


async def test_events(engine: sa.Engine, source: Any, configured: str, caplog: pytest.LogCaptureFixture) -> None:
    told: list[Any] = []
    bus = EventBus()
    configure(configured, bus=bus)
    for kind in (events.JobOutboxed, events.JobDispatched, events.OutboxRelayed, events.OutboxMeasured):
        bus.subscribe(kind, told.append)
    [job_id] = write(engine)
    with engine.begin() as connection:
        connection.execute(sa.update(outbox.table).values(written_ms=outbox.table.c.written_ms - 600_000))
    settings = Settings(jobs=JobsSettings(redis_url=configured))
    async with QueueManager(settings, bus=bus) as manager:
        relay = Relay(manager, source)
        with caplog.at_level(logging.WARNING, "rf_jobs.outbox"):
            await relay._measure()
        await relay.step()
    assert told[0] == events.JobOutboxed(str(job_id), QUEUE, "tests.support.jobs:Add", outbox.name)
    assert (told[1].backlog, round(told[1].age, -1)) == (1, 600)
    assert "the oldest of 1 rows in outbox rf_jobs_outbox has waited 600 s, the objective is 300 s" in caplog.text
    assert (told[2].job_id, told[2].state) == (str(job_id), "ready")
    assert (told[3].outbox, told[3].count, round(told[3].lag, -1), told[3].aside) == (outbox.name, 1, 600, 0)


async def test_a_server_that_is_away_is_told_and_waited_for(
    engine: sa.Engine, source: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with ephemeral_server() as server:
        configure(server.url)
        bus = EventBus()
        told: list[events.OutboxRelayed] = []
        bus.subscribe(events.OutboxRelayed, told.append)
        write(engine)
        async with QueueManager(server.url, bus=bus) as manager:
            server.kill()
            async with Relay(manager, source, poll=0.02):

                async def failed() -> bool:
                    return len(told) > 1

                await until(failed, "it tells of failures")
        assert {each.error for each in told} == {"BackendError"}
        assert len(rows(engine)) == 1


# --- rows that cannot be relayed -----------------------------------------------------------------------------------------


async def test_damaged_rows_are_put_aside(engine: sa.Engine, source: Any, manager: QueueManager) -> None:
    ids = write(engine, 5)
    with engine.begin() as connection:
        connection.execute(sa.update(outbox.table).where(outbox.table.c.id == str(ids[2])).values(draft=b"\xc1 junk"))
    told: list[events.OutboxRelayed] = []
    manager.bus.subscribe(events.OutboxRelayed, told.append)
    assert await Relay(manager, source).step() == 5
    [left] = rows(engine)
    assert left.id == str(ids[2])
    assert "its bytes are not those of a dispatch" in left.problem
    assert (told[0].count, told[0].aside) == (4, 1)
    assert await manager.size(QUEUE) == 4
    assert await Relay(manager, source).step() == 0
    assert await source.measure(10) == (0, 0.0)


async def test_what_the_server_errs_on_does_not_hold_up_the_rest(
    engine: sa.Engine, source: Any, manager: QueueManager
) -> None:
    broken = manager.store.commands.keys.of("ready", "broken")
    await manager.store.client.set(broken, "no sorted set")
    with Session(engine) as session, session.begin():
        for number in range(9):
            builder = Queue.dispatch(Add(a=number, b=0))
            outbox.dispatch(session, builder.on_queue("broken") if number == 4 else builder)
    async with Relay(manager, source, poll=0.02):
        await until(lambda: asyncio.to_thread(lambda: len(rows(engine)) == 1), "the others are relayed", 60)

        async def aside() -> bool:
            return rows(engine)[0].problem is not None

        await until(aside, "it is put aside", 60)
    [left] = rows(engine)
    assert (left.queue, await manager.size(QUEUE)) == ("broken", 8)
    assert "WRONGTYPE" in left.problem


async def test_what_the_server_refuses_is_put_aside_with_the_reason(
    engine: sa.Engine, source: Any, manager: QueueManager
) -> None:
    from rf_jobs.words.ids import new_id

    with Session(engine) as session, session.begin():
        outbox.dispatch(session, Queue.dispatch(Add(a=1, b=0)).depends_on(new_id()))
        fine = outbox.dispatch(session, Add(a=2, b=0))
        child = outbox.dispatch(session, Queue.dispatch(Add(a=3, b=0)).depends_on(fine))
    assert await Relay(manager, source).step() == 3
    [left] = rows(engine)
    assert left.problem.startswith("the server refused it: JobNotFound")
    assert (await manager.job(child)).state == "blocked"
