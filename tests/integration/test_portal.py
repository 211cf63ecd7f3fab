"""What lives on the background loop: one manager for each of those outside, with its middleware and bus, no longer than it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

import rf_jobs
from rf_jobs import Middleware, QueueManager, Settings, sync
from rf_jobs.client import portal
from rf_jobs.client.queue import default_manager
from rf_jobs.model import events as ev
from rf_jobs.model.envelope import Envelope, Headers
from rf_jobs.model.events import EventBus
from rf_jobs.store.redis import AsyncStore
from rf_jobs.telemetry import telemetry
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import BackendError, InvalidOption
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.processes import wait_until


class Marks(Middleware):
    def __init__(self, mark: str = "marked") -> None:
        self.mark = mark

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        headers.cv = self.mark


@pytest.fixture
def stores(monkeypatch: pytest.MonkeyPatch) -> list[AsyncStore]:
    """All that were made, in their order."""
    made: list[AsyncStore] = []
    begin = AsyncStore.__init__

    def note(self: AsyncStore, *args: Any, **options: Any) -> None:
        made.append(self)
        begin(self, *args, **options)

    monkeypatch.setattr(AsyncStore, "__init__", note)
    return made


@pytest.fixture
def _default() -> Iterator[None]:
    yield
    rf_jobs.configure(None)


def conversation(manager: sync.QueueManager, job_id: Any) -> str:
    """What a middleware wrote into the job's headers."""

    async def read(m: QueueManager) -> str:
        letter = await m.inspector.envelope(str(job_id))
        assert letter is not None
        return letter.hdr.cv if letter.hdr is not None else ""

    return manager._run(read)


# --- whose manager it is --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [True, False])
def test_a_manager_at_a_reused_address_is_its_own(redis_url: str, closed: bool) -> None:
    """CPython gives the next object the address of the last."""
    for number in range(5):
        manager = sync.QueueManager(redis_url, namespace=f"n{number}")
        assert manager.counts(QUEUE)["ready"] == 0
        manager.dispatch(jobs.Add(a=1, b=1)).sync()
        assert manager.counts(QUEUE)["ready"] == 1
        if closed:
            manager.close()
        del manager
        gc.collect()


def test_what_is_dropped_without_being_closed_is_closed_all_the_same(redis_url: str, stores: list[AsyncStore]) -> None:
    manager = sync.QueueManager(redis_url)
    manager.dispatch(jobs.Add(a=1, b=1)).sync()
    [inside] = stores
    assert not inside.closed
    del manager
    gc.collect()
    wait_until(lambda: inside.closed, "its connections are closed")


async def test_a_closed_async_manager_leaves_none_behind(redis_url: str, stores: list[AsyncStore]) -> None:
    manager = await QueueManager.connect(redis_url)
    await asyncio.to_thread(manager.dispatch(jobs.Add(a=1, b=1)).sync)
    await manager.aclose()
    assert [store.closed for store in stores] == [True, True]
    with pytest.raises(BackendError, match="closed; make a new one"):
        await asyncio.to_thread(manager.dispatch(jobs.Add(a=1, b=1)).sync)


def test_nothing_can_be_done_with_a_closed_one(redis_url: str) -> None:
    manager = sync.QueueManager.connect(redis_url)
    manager.close()
    manager.close()
    with pytest.raises(BackendError, match="closed; make a new one"):
        manager.size(QUEUE)
    with pytest.raises(BackendError, match="closed; make a new one"):
        asyncio.run(manager.send(*manager.dispatch(jobs.Add(a=1, b=1)).take()))
    sync.QueueManager(redis_url).close()  # one that was never used


def test_a_connect_that_fails_keeps_nothing() -> None:
    before = len(portal.portal()._lodgers)
    with pytest.raises(BackendError, match="no answer"):
        sync.QueueManager.connect("redis://127.0.0.1:1/0", retry_for=0.1)
    assert len(portal.portal()._lodgers) == before


# --- what it takes ----------------------------------------------------------------------------------------------------


async def test_middleware_sees_a_blocking_dispatch(redis_url: str) -> None:
    async with QueueManager(redis_url, middleware=[Marks()]) as manager:
        job = await asyncio.to_thread(manager.dispatch(jobs.Add(a=1, b=1)).sync)
        letter = await manager.inspector.envelope(str(job))
        assert letter is not None
        assert letter.hdr is not None
        assert letter.hdr.cv == "marked"
        manager.middleware.add(Marks("later"))  # as tracing does
        job = await asyncio.to_thread(manager.dispatch(jobs.Add(a=1, b=1)).sync)
        letter = await manager.inspector.envelope(str(job))
        assert letter is not None
        assert letter.hdr is not None
        assert letter.hdr.cv == "later"


@pytest.mark.usefixtures("_default")
async def test_middleware_of_the_default_queue(redis_url: str) -> None:
    rf_jobs.configure(redis_url, middleware=[Marks()])
    async with default_manager() as manager:
        for mark in ("marked", "later"):
            job = await asyncio.to_thread(rf_jobs.Queue.dispatch(jobs.Add(a=1, b=1)).sync)
            letter = await manager.inspector.envelope(str(job))
            assert letter is not None
            assert letter.hdr is not None
            assert letter.hdr.cv == mark
            manager.middleware.add(Marks("later"))


@pytest.mark.usefixtures("_default")
def test_the_default_queue_makes_one_connection_for_all_blocking_dispatches(
    redis_url: str, stores: list[AsyncStore]
) -> None:
    rf_jobs.configure(redis_url)
    for _ in range(3):
        rf_jobs.Queue.dispatch(jobs.Add(a=1, b=1)).sync()
    assert len(stores) == 2, "one that never connects, and its counterpart on the background loop"


def test_the_twin_takes_what_the_async_one_takes(redis_url: str) -> None:
    bus = EventBus()
    seen: list[ev.JobDispatched] = []
    bus.subscribe(ev.JobDispatched, seen.append)
    with sync.QueueManager(redis_url, middleware=[Marks()], bus=bus, retry_for=timedelta(seconds=2)) as manager:
        job = manager.dispatch(jobs.Add(a=1, b=1)).sync()
        assert [event.job_id for event in seen] == [str(job)]
        assert conversation(manager, job) == "marked"
        assert manager._run(lambda m: asyncio.sleep(0, m.store.retry_for)) == 2
    with pytest.raises(InvalidOption, match="retry_for is -1"):
        sync.QueueManager(redis_url, retry_for=-1)


@pytest.mark.parametrize("timeout", [0.2, timedelta(milliseconds=200)])
def test_the_twin_heeds_a_timeout(timeout: float) -> None:
    manager = sync.QueueManager("redis://127.0.0.1:1/0", retry_for=30)
    with pytest.raises(BackendError, match=r"no answer within 0\.2 s"):
        manager.dispatch(jobs.Add(a=1, b=1)).sync(timeout)
    manager.close()


@pytest.mark.parametrize("kind", [QueueManager, sync.QueueManager])
def test_a_namespace_beside_settings(redis_url: str, kind: Any) -> None:
    given = Settings(jobs=JobsSettings(redis_url=redis_url, namespace="y"))
    assert kind(given, namespace="x").settings.jobs == JobsSettings(redis_url=redis_url, namespace="x")
    assert kind(given).settings is given


# --- what is entered there ----------------------------------------------------------------------------------------------


def test_an_async_context_around_the_twin(redis_url: str) -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def around(manager: QueueManager) -> AsyncGenerator[str, None]:
        steps.append("entered")
        yield manager.store.url
        steps.append("closed" if manager.store.closed else "left")

    with sync.QueueManager(redis_url) as manager:
        assert manager.enter(around) == redis_url
        assert steps == ["entered"]
    assert steps == ["entered", "left"]


def test_telemetry_of_the_twin(redis_url: str) -> None:
    with sync.QueueManager(redis_url) as manager:
        manager.enter(lambda m: telemetry(m, m.settings.telemetry))
        manager.dispatch(jobs.Add(a=1, b=1)).sync()
    with sync.QueueManager(redis_url) as manager:
        metrics = manager._run(lambda m: m.store.run(m.store.commands.metrics()))
    assert [value for name, value in metrics.items() if "jobs_dispatched" in name and float(value)] == ["1"]
