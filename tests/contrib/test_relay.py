"""A relay, whatever dies: nothing is lost, nothing is doubled."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from rf_jobs import QueueManager, Relay, WorkerPool, configure
from rf_jobs.client.outbox import Haul
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.words.config_settings import JobsSettings, Settings
from rf_jobs.words.errors import BackendError, WorkerError
from tests.contrib.relaying import dispatched, rows, worker, write
from tests.contrib.shop import Order, outbox
from tests.support.jobs import QUEUE, Add
from tests.support.processes import ROOT, process, rf_jobs
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("configured")


# --- deaths ----------------------------------------------------------------------------------------------------------


def test_a_process_that_dies_after_its_commit_loses_nothing(engine: sa.Engine, database: tuple[str, str]) -> None:
    code = """
import os, signal, sys
import sqlalchemy as sa
from sqlalchemy.orm import Session
from tests.contrib.shop import Order, outbox
from tests.support.jobs import Add
engine = sa.create_engine(sys.argv[1])
with Session(engine) as session:
    session.add(Order(number=1))
    outbox.dispatch(session, Add(a=1, b=2))
    session.commit()
    session.add(Order(number=2))
    outbox.dispatch(session, Add(a=1, b=2))
    session.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, database[0]], cwd=ROOT, check=False, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(rows(engine)) == 1
    with engine.connect() as connection:
        assert connection.scalars(sa.select(Order.number)).all() == [1]


async def run_to_its_end(url: str, job_id: UUID) -> None:
    """Its record goes as soon as it is completed."""
    async with QueueManager(Settings(jobs=JobsSettings(redis_url=url, completed_keep=0))) as manager:
        async with WorkerPool(manager=manager, config=worker()):

            async def gone() -> bool:
                counts = await manager.counts(QUEUE)
                return not counts["ready"] and not counts["running"]

            await until(gone, "the job has run")
        assert await manager.inspector.envelope(str(job_id)) is None


class DiesBeforeItsCommit:
    """A source whose relay dies between the push and the commit."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self.name = source.name

    @asynccontextmanager
    async def take(self, limit: int) -> AsyncGenerator[Haul, None]:
        async with self._source.take(limit) as haul:
            yield haul
            raise ConnectionResetError("the relay is dead")

    async def measure(self, most: int) -> tuple[int, float]:
        measured: tuple[int, float] = await self._source.measure(most)
        return measured

    async def aclose(self) -> None:
        pass


async def test_a_row_that_is_pushed_again_is_not_doubled_even_when_its_job_is_long_gone(
    engine: sa.Engine, source: Any, manager: QueueManager, configured: str
) -> None:
    [job_id] = write(engine)
    with pytest.raises(ConnectionResetError):
        await Relay(manager, DiesBeforeItsCommit(source)).step()
    assert len(rows(engine)) == 1
    await run_to_its_end(configured, job_id)
    assert await Relay(manager, source).step() == 1
    assert rows(engine) == []
    assert (await dispatched(manager), await manager.size(QUEUE)) == (1, 0)
    assert len(await manager.store.client.keys("*relayed*")) == 1, "a relay that was held up may yet push it"


async def test_ids_of_rows_that_are_gone_are_forgotten_in_time(
    engine: sa.Engine, source: Any, manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = Relay(manager, source)
    write(engine, 3)
    await relay.step()
    assert len(await manager.store.client.keys("*relayed*")) == 3
    assert await relay.step() == 0
    assert len(await manager.store.client.keys("*relayed*")) == 3
    monkeypatch.setattr("rf_jobs.worker.relay.LINGER_SECONDS", 0.0)
    assert await relay.step() == 0
    assert await manager.store.client.keys("*relayed*") == []


async def test_rows_that_were_held_too_long_are_taken_again(
    engine: sa.Engine, source: Any, manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(engine)
    with monkeypatch.context() as patch:
        patch.setattr("rf_jobs.worker.relay.HELD_SECONDS", -1.0)
        with pytest.raises(WorkerError, match="not pushed yet; taking them again"):
            await Relay(manager, source).step()
    assert (len(rows(engine)), await manager.size(QUEUE)) == (1, 0)
    assert await Relay(manager, source).step() == 1


async def test_durable_without_aof(engine: sa.Engine, source: Any, manager: QueueManager) -> None:
    """It says so, and keeps the rows, which are no worse than others."""
    write(engine)
    relay = Relay(manager, source, durable=True)
    for _ in range(4):
        with pytest.raises(BackendError, match="appendonly is disabled") as caught:
            await relay.step()
        await relay._failed(caught.value)
    [row] = rows(engine)
    assert row.problem is None


@pytest.mark.timeout(300)
async def test_relays_that_are_killed_all_the_time(
    engine: sa.Engine, database: tuple[str, str], manager: QueueManager, configured: str, tmp_path: Path
) -> None:
    """Relays in processes of their own are killed between a push and its commit, and started again, while transactions are
    committed and rolled back and a worker runs the jobs, whose records go at once."""
    env = {"RF_JOBS_REDIS_URL": configured, "RF_JOBS_TEST_DATABASE": database[1]}
    settings = Settings(jobs=JobsSettings(redis_url=configured, completed_keep=0))

    async def relaying(number: int) -> None:
        """Dies three times; what then lives takes the rest."""
        for kind in ("deadly", "deadly", "deadly", "source"):
            command = rf_jobs("outbox", f"tests.contrib.shop:{kind}", "--no-tracing")
            with process(*command, log=tmp_path / f"{number}", env=env) as relay:

                async def over() -> bool:
                    return relay.poll() is not None or (written.is_set() and not rows(engine))

                await until(over, "it dies, or nothing is left", 60)

    written = asyncio.Event()
    async with QueueManager(settings) as runner, WorkerPool(worker(), runner):
        relays = [asyncio.create_task(relaying(number)) for number in (0, 1)]
        for number in range(60):
            with Session(engine) as session:
                outbox.dispatch(session, Add(a=number, b=2))
                await asyncio.to_thread(session.commit)
                outbox.dispatch(session, Add(a=number, b=2))
                session.flush()
                session.rollback()
        written.set()
        await asyncio.gather(*relays)

        async def idle() -> bool:
            counts = await manager.counts(QUEUE)
            return counts["ready"] == counts["running"] == 0

        await until(idle, "all have run")
    assert await dispatched(manager) == 60


async def test_a_server_that_dies_and_comes_back(database: tuple[str, str], engine: sa.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    with EmbeddedServer.start(folder) as server:
        url = server.url
        configure(url)
        write(engine, 300)
        async with QueueManager(url) as manager:
            relay = Relay(manager, outbox.source(engine), batch=100, poll=0.05, durable=True)
            assert await relay.step() == 100
            server.kill()
            with pytest.raises(BackendError):
                await relay.step()
            assert len(rows(engine)) == 200
            async with relay:
                with EmbeddedServer.start(folder):
                    await until(lambda: asyncio.to_thread(lambda: not rows(engine)), "all are relayed", 60)
                    assert await dispatched(manager) == 300
                    assert await manager.size(QUEUE) == 300


# --- several ---------------------------------------------------------------------------------------------------------


async def test_several_relays_share_the_rows(
    engine: sa.Engine, database: tuple[str, str], manager: QueueManager
) -> None:
    ids = write(engine, 400)
    sources = [outbox.source(engine) for _ in range(3)]
    relays = [Relay(manager, source, batch=20) for source in sources]
    moved = [0, 0, 0]

    async def move(at: int) -> None:
        while rows(engine):
            moved[at] += await relays[at].step()

    await asyncio.gather(*(move(at) for at in range(3)))
    for source in sources:
        await source.aclose()
    assert sum(moved) == 400
    assert await dispatched(manager) == await manager.size(QUEUE) == 400
    if engine.dialect.name == "postgresql":
        assert all(moved), "none waits for another's locks"
    assert {(await manager.job(each)).state for each in ids[::50]} == {"ready"}


# --- in a process --------------------------------------------------------------------------------------------------------


async def test_a_relay_beside_a_worker(engine: sa.Engine, source: Any, manager: QueueManager) -> None:
    async with WorkerPool(worker(), manager), Relay(manager, source, poll=0.02):
        [job_id] = write(engine)

        async def known() -> bool:
            return await manager.inspector.envelope(str(job_id)) is not None

        await until(known, "it is relayed")
        assert await manager.wait(job_id, timeout=10) == 0


async def test_a_relay_is_started_once(source: Any, manager: QueueManager) -> None:
    relay = Relay(manager, source)
    async with relay:
        with pytest.raises(WorkerError, match="was started before"):
            await relay.__aenter__()


async def test_a_relay_that_is_cancelled_leaves_no_transaction_open(
    engine: sa.Engine, source: Any, manager: QueueManager
) -> None:
    write(engine, 200)
    for _ in range(20):
        running = asyncio.create_task(Relay(manager, source, batch=5).run())
        await asyncio.sleep(0.002)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    relay = Relay(manager, source)
    while await relay.step():
        pass
    assert rows(engine) == []
    assert await dispatched(manager) == 200
