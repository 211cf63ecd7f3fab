"""Looking for jobs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner

from rf_jobs import Encrypted, InvalidOption, Job, JobContext, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.cli.app import app
from tests.support.flow_jobs import QUEUE, Breaks, Note, mended, seen
from tests.support.waiting import until


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    seen.clear()
    mended.clear()
    async with QueueManager(redis_url) as running:
        yield running


async def test_by_class_tag_state_and_text(manager: QueueManager) -> None:
    first = await manager.dispatch(Note(what="needle in hay")).tags("tenant:7")
    later = await manager.dispatch(Note(what="hay")).delay(60).on_queue("elsewhere")
    broken = await manager.dispatch(Breaks(what="of straw"))
    async with WorkerPool(WorkerConfig(queues=[QUEUE]), manager):

        async def over() -> bool:
            return (await manager.counts(QUEUE))["dead"] == 1

        await until(over, "it died")

    async def ids(**wanted: object) -> set[str]:
        found = await manager.search(**wanted)  # type: ignore[arg-type]
        assert found.complete
        return {str(record.id) for record in found.jobs}

    assert await ids() == {str(first), str(later), str(broken)}
    assert await ids(text="needle") == {str(first)}
    assert await ids(text=str(later)) == {str(later)}
    assert await ids(text="ValueError: of straw") == {str(broken)}
    assert await ids(tag="tenant:7") == {str(first)}
    assert await ids(job_class=Note) == await ids(job_class="Note") == {str(first), str(later)}
    assert await ids(queue="elsewhere") == await ids(states=["scheduled"]) == {str(later)}
    assert await ids(job_class="Note", states=["dead"]) == set()


async def test_it_is_bounded(manager: QueueManager) -> None:
    await manager.dispatch_many([Note(what=str(n)) for n in range(250)])
    found = await manager.search(limit=3)
    assert (len(found.jobs), found.complete) == (3, False)
    found = await manager.search(text="nowhere", scan=150)
    assert (found.jobs, found.scanned, found.complete) == ([], 200, False)
    bad: dict[str, Any]
    for bad in ({"limit": 0}, {"scan": 0}, {"states": ["gone"]}, {"queue": "a b"}):
        with pytest.raises(InvalidOption):
            await manager.search(**bad)


async def test_what_is_sealed_is_not_read(redis_url: str) -> None:
    from rf_jobs import SecuritySettings, Settings
    from rf_jobs.words.config_settings import JobsSettings
    from rf_jobs.words.secret_keys import new_key

    class Sealed(Job, queue=QUEUE):
        card: Encrypted[str]

        async def handle(self, ctx: JobContext) -> None: ...

    settings = Settings(
        jobs=JobsSettings(redis_url=redis_url), security=SecuritySettings(encryption_keys=(new_key("a").text(),))
    )
    async with QueueManager(settings) as manager:
        await manager.dispatch(Sealed(card="4111"))
        assert (await manager.search(text="4111")).jobs == []


def test_at_the_command_line(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rf_jobs.sync import QueueManager as SyncQueueManager

    monkeypatch.setenv("RF_JOBS_REDIS_URL", redis_url)
    with SyncQueueManager(redis_url) as manager:
        job = manager.dispatch(Note(what="needle")).sync()
        assert [record.id for record in manager.search(text="needle").jobs] == [job]
    found = CliRunner().invoke(app, ["jobs", "search", "needle", "--json"])
    assert (found.exit_code, [each["id"] for each in json.loads(found.stdout)["jobs"]]) == (0, [str(job)])
    assert str(job) in CliRunner().invoke(app, ["jobs", "search", "--class", "Note"]).stdout
    missed = CliRunner().invoke(app, ["jobs", "search", "straw"])
    assert (missed.exit_code, missed.stdout) == (1, "none of 1 jobs fits\n")
