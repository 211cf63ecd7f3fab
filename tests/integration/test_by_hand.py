"""Leasing jobs by hand: what cannot be read is set aside, what was dropped comes back, what is told is told in full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID

import pytest

from rf_jobs import Job, JobContext, QueueManager, Settings
from rf_jobs.model import events as ev
from rf_jobs.words.config_settings import JobsSettings, WorkerSettings
from rf_jobs.words.errors import BackendError, InvalidOption, StaleLease
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.waiting import until


class Keeps(Job, queue=QUEUE, result_ttl=timedelta(minutes=2)):
    async def handle(self, ctx: JobContext) -> None: ...


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    jobs = JobsSettings(redis_url=redis_url, result_ttl_seconds=50)
    async with QueueManager(Settings(jobs=jobs, worker=WorkerSettings(max_crashes=2))) as running:
        yield running
        assert {queue.imbalance for queue in await running.queues()} <= {0}


@pytest.fixture
def ends(manager: QueueManager) -> list[ev.AttemptEnded]:
    seen: list[ev.AttemptEnded] = []
    manager.bus.subscribe(ev.AttemptEnded, seen.append)
    return seen


async def spoil(manager: QueueManager, job_id: UUID, data: bytes = b"\xff\x00junk") -> None:
    await manager.store.client.set(manager.store.keys.of("job", str(job_id)), data)


async def test_one_damaged_envelope_costs_its_own_job_alone(manager: QueueManager, ends: list[ev.AttemptEnded]) -> None:
    ids = await manager.dispatch_many([jobs.Add(a=n, b=n) for n in range(3)])
    await spoil(manager, ids[1])
    leased = await manager.pop_batch(QUEUE, 10)
    assert [one.id for one in leased] == [ids[0], ids[2]]
    [event] = ends
    assert isinstance(event, ev.JobDied)
    assert (event.job_id, event.reason) == (str(ids[1]), "decode")
    assert event.error_type == "rf_jobs.words.errors.SerializationError"
    [letter] = await manager.failed_jobs()
    last = letter.last_error
    assert last is not None
    assert (letter.id, letter.reason, last.type, last.attempt) == (ids[1], "decode", event.error_type, 1)
    assert "the envelope is damaged" in last.message
    assert "SerializationError" in last.traceback
    for one in leased:
        await one.complete()
    assert (await manager.counts(QUEUE))["completed"] == 2


async def test_an_envelope_of_a_newer_version_is_parked(manager: QueueManager, ends: list[ev.AttemptEnded]) -> None:
    job = await manager.dispatch(jobs.Add(a=1, b=1))
    await spoil(manager, job, b'{"v":3,"id":"x"}')
    assert await manager.pop_batch(QUEUE, 10) == []
    assert [type(event) for event in ends] == [ev.JobParked]
    record = await manager.job(job)
    assert (record.state, record.attempt) == ("parked", 0)
    assert "newer version" in record.reason


async def test_jobs_of_a_consumer_that_died_come_back_to_the_next(manager: QueueManager) -> None:
    job = await manager.dispatch(jobs.Add(a=1, b=1))
    for crashes in (0, 1):
        [leased] = await until(
            lambda: manager.pop_batch(QUEUE, 10, lease=timedelta(milliseconds=5)), "its lease is over and it is back"
        )
        assert (leased.id, (await manager.job(job)).crashes) == (job, crashes)

    async def dead() -> bool:
        assert await manager.pop_batch(QUEUE, 10) == []
        return (await manager.job(job)).state == "dead"

    await until(dead, "after the crashes that the settings allow it is buried as poison")
    assert (await manager.job(job)).crashes == 2


async def test_a_retry_says_why_and_when(manager: QueueManager, ends: list[ev.AttemptEnded]) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    await leased.retry(timedelta(seconds=90), "the mail server is down")
    [event] = ends
    assert isinstance(event, ev.JobRetried)
    assert (event.reason, event.message, event.delay) == ("the mail server is down", "the mail server is down", 90.0)
    assert event.error_type
    [error] = (await manager.job(leased.id)).errors
    assert (error.message, error.attempt) == ("the mail server is down", 1)
    assert error.started_at is not None
    assert error.started_at <= error.at


async def test_a_retry_that_was_only_asked_for_is_no_failure(
    manager: QueueManager, ends: list[ev.AttemptEnded]
) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    await leased.retry()
    [event] = ends
    assert isinstance(event, ev.JobRetried)
    assert (event.reason, event.error_type, event.delay) == ("requested", "", 0.0)
    assert (await manager.job(leased.id)).errors == []


@pytest.mark.parametrize("reason", ["not a row", "x" * 5_000, "lone \ud800 surrogate"])
async def test_a_failure_says_why(manager: QueueManager, ends: list[ev.AttemptEnded], reason: str) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    await leased.fail(reason)
    [event] = ends
    assert isinstance(event, ev.JobDied)
    [letter] = await manager.failed_jobs()
    assert letter.last_error is not None
    assert (letter.reason, letter.last_error.message) == (event.reason, event.message)
    assert (event.error_type, event.message[:5]) == (letter.last_error.type, reason[:5])
    assert (len(event.reason) <= 200, len(event.message) <= 2_000) == (True, True)


async def test_a_release_says_so(manager: QueueManager, ends: list[ev.AttemptEnded]) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    await leased.release()
    [event] = ends
    assert isinstance(event, ev.JobReleased)
    assert event.reason == "released"
    assert (await manager.job(leased.id)).attempt == 0


@pytest.mark.parametrize(("job", "ttl"), [(jobs.Add(a=1, b=1), 50), (Keeps(), 120)])
async def test_a_result_is_kept_as_long_as_a_workers(manager: QueueManager, job: Job, ttl: int) -> None:
    await manager.dispatch(job)
    [leased] = await manager.pop_batch(QUEUE, 1)
    await leased.complete({"sum": 2})
    left = await manager.store.client.pttl(manager.store.keys.of("result", str(leased.id)))
    assert ttl - 30 < left / 1000 <= ttl
    assert await manager.wait(leased.id) == {"sum": 2}


async def test_what_pop_batch_refuses(manager: QueueManager) -> None:
    with pytest.raises(InvalidOption, match="ask for 1 to 1000"):
        await manager.pop_batch(QUEUE, 0)
    with pytest.raises(InvalidOption, match="lease is 0 s"):
        await manager.pop_batch(QUEUE, 1, lease=0)


async def test_a_job_is_ended_once(manager: QueueManager, ends: list[ev.AttemptEnded]) -> None:
    job_id = await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    await leased.complete(7)
    for again in (leased.complete, leased.release, leased.retry, lambda: leased.fail("no")):
        with pytest.raises(StaleLease, match=r"was ended before \(complete\); a leased job can be ended once"):
            await again()
    assert len(ends) == 1
    assert await manager.wait(job_id) == 7


async def test_an_end_that_did_not_come_through_may_be_tried_again(
    manager: QueueManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.dispatch(jobs.Add(a=1, b=1))
    [leased] = await manager.pop_batch(QUEUE, 1)
    with monkeypatch.context() as patch:
        patch.setattr(manager.lifecycle, "apply", _away)
        with pytest.raises(BackendError):
            await leased.complete()
    await leased.complete()
    assert (await manager.counts(QUEUE))["completed"] == 1


async def _away(*_: object) -> None:
    raise BackendError("the server is away")
