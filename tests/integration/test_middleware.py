"""Middlewares: in which order they wrap, what they can stop, and what they see of a whole ``dispatch_many``."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rf_jobs import Envelope, Handle, Headers, JobContext, Middleware, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.sync import QueueManager as SyncManager
from rf_jobs.words.config_settings import JobsSettings, Settings
from rf_jobs.words.errors import ConfigError
from tests.support.jobs import QUEUE, Add
from tests.support.processes import process, rf_jobs

seen: list[str] = []


class Wraps(Middleware):
    def __init__(self, name: str) -> None:
        self.name = name

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        headers.bg = {**headers.bg, self.name: envelope.job.rpartition(":")[2]}

    async def around_batch(self, count: int, send: Handle) -> Any:
        seen.append(f"{self.name} sends {count}")
        try:
            return await send()
        finally:
            seen.append(f"{self.name} has sent")

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        seen.append(f"{self.name} runs {job.a} with {sorted(ctx.headers.items())}")
        return await handle() + 1


class Refuses(Middleware):
    """Says no to a job, while it is prepared."""

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        if b'"a":13' in bytes(envelope.args):
            raise PermissionError("not this one")


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    async with QueueManager(redis_url, middleware=[Wraps("outer"), Wraps("inner")]) as running:
        yield running


async def test_the_first_is_outermost(manager: QueueManager) -> None:
    ids = await manager.dispatch_many([Add(a=1, b=1), Add(a=2, b=2)])
    assert seen == ["outer sends 2", "inner sends 2", "inner has sent", "outer has sent"]
    seen.clear()
    async with WorkerPool(WorkerConfig(queues=[QUEUE], max_concurrent_jobs=1), manager):
        assert [await manager.wait(each, 30) for each in ids] == [2 + 2, 4 + 2]
    headers = [("inner", "Add"), ("outer", "Add")]
    assert seen == [f"{who} runs {job} with {headers}" for job in (1, 2) for who in ("outer", "inner")]


async def test_one_job_alone_is_no_batch(manager: QueueManager) -> None:
    await manager.dispatch(Add(a=1, b=1))
    assert seen == []


async def test_what_one_refuses_stops_all_of_them(manager: QueueManager) -> None:
    manager.middleware.add(Refuses())
    with pytest.raises(PermissionError, match="not this one"):
        await manager.dispatch_many([Add(a=1, b=1), Add(a=13, b=1), Add(a=2, b=1)])
    with pytest.raises(PermissionError):
        await manager.dispatch(Add(a=13, b=1))
    assert await manager.size(QUEUE) == 0
    await manager.dispatch(Add(a=1, b=1))
    assert await manager.size(QUEUE) == 1


# --- named by the settings -----------------------------------------------------------------------------------------


def plus_one() -> Middleware:
    return Wraps("made")


ready = Wraps("ready")


def named(url: str, *names: str) -> Settings:
    return Settings(jobs=JobsSettings(redis_url=url, middleware=tuple(f"{__name__}:{name}" for name in names)))


async def test_settings_name_them(redis_url: str) -> None:
    seen.clear()
    async with QueueManager(named(redis_url, "plus_one", "ready")) as manager:
        job_id = await manager.dispatch(Add(a=1, b=2))
        async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):
            assert await manager.wait(job_id, 10) == 5
    assert [line.partition(" ")[0] for line in seen] == ["made", "ready"], "the first is outermost"


async def test_what_a_program_gives_goes_before_them(redis_url: str) -> None:
    async with QueueManager(named(redis_url, "plus_one"), middleware=[Refuses()]) as manager:
        job_id = await manager.dispatch(Add(a=1, b=2))
        letter = await manager.inspector.envelope(str(job_id))
        assert letter is not None
        assert letter.hdr is None, "no other has seen it"
        await manager.clear(QUEUE)


def test_a_worker_command_takes_them(redis_url: str, tmp_path: Path) -> None:
    """In its processes too."""
    (tmp_path / "shop_around.py").write_text(
        "from rf_jobs import Middleware\n\n\nclass Twice(Middleware):\n"
        "    async def around(self, ctx, job, handle):\n        return 2 * await handle()\n"
    )
    env = {"RF_JOBS_MIDDLEWARE": "shop_around:Twice", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = rf_jobs("worker", "tests.support.jobs", "--queues", QUEUE, "--redis-url", redis_url)
    with process(*command, log=tmp_path / "log", env=env), SyncManager(redis_url) as manager:
        job_id = manager.dispatch(Add(a=1, b=2)).sync()
        assert manager.wait(job_id, 30) == 6


@pytest.mark.parametrize(
    ("name", "said"), [("nobody", "can't be had"), ("seen", "is no Middleware"), ("pytest", "is no Middleware")]
)
def test_what_is_none_is_refused(redis_url: str, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"middleware is '{__name__}:{name}'.*{said}"):
        QueueManager(named(redis_url, name))
