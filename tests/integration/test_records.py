"""The read model: a damaged record hides neither itself nor its neighbours, and pages take few round trips."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from rf_jobs import Filters, QueueManager, State
from rf_jobs.core.records import UNREADABLE
from rf_jobs.model import envelope
from rf_jobs.model import events as ev
from rf_jobs.model.envelope import Headers
from rf_jobs.words.errors import InvalidOption, JobNotFound
from tests.support import jobs
from tests.support.jobs import QUEUE

TRACES = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2, 3)]
Damage = Callable[[QueueManager, str], Awaitable[Any]]


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running


async def dead_letters(manager: QueueManager, count: int) -> list[UUID]:
    """Ids of as many, the newest first."""
    sent = await manager.dispatch_many([jobs.Add(a=n, b=n) for n in range(count)])
    for leased in await manager.pop_batch(QUEUE, count):
        await leased.fail("no")
    found = await manager.inspector.ids(State.DEAD, QUEUE, 0, count, newest_first=True)
    assert {str(job) for job in sent} == set(found)
    return [UUID(job) for job in found]


def write(family: str, data: bytes) -> Damage:
    return lambda manager, job: manager.store.client.set(manager.store.keys.of(family, job), data)


def push(family: str, data: bytes) -> Damage:
    return lambda manager, job: manager.store.client.rpush(manager.store.keys.of(family, job), data)


def note(field: str, value: str) -> Damage:
    return lambda manager, job: manager.store.client.hset(manager.store.keys.of("meta", job), field, value)


async def in_microseconds(manager: QueueManager, job: str) -> None:
    """As a client in another language might."""
    letter = await manager.inspector.envelope(job)
    assert letter is not None
    letter.at *= 1000
    letter.exp = letter.at
    await write("job", envelope.encode(letter))(manager, job)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(in_microseconds, id="times in microseconds"),
        pytest.param(write("job", b"\xff junk"), id="envelope"),
        pytest.param(push("errors", b"\xff{no json"), id="an error that is no JSON"),
        pytest.param(push("errors", b"[1]"), id="an error that is no object"),
        pytest.param(push("errors", b'{"at":1e300,"started":"x","attempt":[]}'), id="an error with odd members"),
        pytest.param(push("timeline", b"\xffyesterday retried"), id="a moment without a time"),
        pytest.param(push("timeline", b"99999999999999999999 retried x"), id="a moment in a far future"),
        pytest.param(write("progress", b"{}"), id="progress without members"),
        pytest.param(write("progress", b"\xff"), id="progress"),
        pytest.param(write("result", b"\xff"), id="result"),
        pytest.param(note("finished", "never"), id="a time that is none"),
        pytest.param(note("attempt", "x"), id="a number that is none"),
    ],
)
async def test_a_damaged_record_hides_nothing(manager: QueueManager, damage: Damage) -> None:
    ids = await dead_letters(manager, 3)
    await damage(manager, str(ids[1]))
    record = await manager.job(ids[1])
    assert (record.state, record.queue) == ("dead", QUEUE)
    assert [letter.id for letter in await manager.failed_jobs()] == ids
    assert await manager.retry_all_failed() == 3
    await manager.store.client.delete(manager.store.keys.of("result", str(ids[1])))  # the test's own, without an end


async def test_what_cannot_be_read_is_shown(manager: QueueManager) -> None:
    [job] = await dead_letters(manager, 1)
    await push("errors", b"\xff{no json")(manager, str(job))
    await push("timeline", b"yesterday retried")(manager, str(job))
    await in_microseconds(manager, str(job))
    record = await manager.job(job)
    assert record.last_error is not None
    assert (record.last_error.type, record.last_error.message) == (UNREADABLE, "\ufffd{no json")
    assert [moment.detail for moment in record.timeline if moment.event == UNREADABLE] == ["yesterday retried"]
    assert record.dispatched_at is not None
    assert record.dispatched_at.year == 9999
    record.dispatched_at.astimezone()  # any time zone can show it


# --- cancel and forget --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["ready", "scheduled", "retried", "running"])
async def test_a_job_with_a_damaged_envelope_can_be_cancelled(manager: QueueManager, state: str) -> None:
    await manager.dispatch(jobs.Add(a=0, b=0)).on_queue("another")
    job = await manager.dispatch(jobs.Add(a=1, b=1)).delay(3600 if state == "scheduled" else 0)
    taken = await manager.pop_batch(QUEUE, 1) if state in ("retried", "running") else []
    for leased in taken:
        if state == "retried":
            await leased.retry(3600)
    await write("job", b"junk")(manager, str(job))
    record = await manager.job(job)
    assert (record.queue, record.state) == (QUEUE, "scheduled" if state == "retried" else state)
    assert await manager.cancel(job)
    assert (await manager.job(job)).cancel_requested == (state == "running")
    assert (await manager.counts(QUEUE))["cancelled"] == (state != "running")
    assert {queue.imbalance for queue in await manager.queues()} == {0}
    if state == "running":
        await taken[0].retry()
        assert (await manager.counts(QUEUE))["cancelled"] == 1
    assert not await manager.cancel(job)


async def test_a_dead_letter_with_a_damaged_envelope_can_be_forgotten(manager: QueueManager) -> None:
    [job] = await dead_letters(manager, 1)
    await write("job", b"junk")(manager, str(job))
    assert await manager.forget_failed(job)
    with pytest.raises(JobNotFound):
        await manager.cancel(job)


# --- pages --------------------------------------------------------------------------------------------------------------


async def test_a_queue_given_twice(manager: QueueManager) -> None:
    await dead_letters(manager, 2)
    with pytest.raises(InvalidOption, match=r"queue is 'a' and filters\.queue is 'b'"):
        await manager.failed_jobs("a", filters=Filters(queue="b"))
    with pytest.raises(InvalidOption, match="queue name is 'a b'"):
        await manager.failed_jobs(filters=Filters(queue="a b"))
    for queue, filters in [(QUEUE, None), (QUEUE, Filters(queue=QUEUE)), (None, Filters(queue=QUEUE))]:
        assert len(await manager.failed_jobs(queue, filters=filters)) == 2
    assert await manager.failed_jobs("other", filters=Filters()) == []


@pytest.mark.parametrize("filters", [Filters(), Filters(job_class="Add"), Filters(queue=QUEUE, error="no")])
async def test_pages_tile_the_dead_letters(manager: QueueManager, filters: Filters) -> None:
    ids = await dead_letters(manager, 230)
    paged = [letter.id for at in range(0, 240, 40) for letter in await manager.failed_jobs(None, at, 40, filters)]
    assert paged == ids
    # A record that retention takes between the listing and the look does not end the list.
    await manager.store.client.delete(*(manager.store.keys.of(family, str(ids[5])) for family in ("job", "meta")))
    del ids[5]
    assert [letter.id for letter in await manager.failed_jobs(None, 0, 1_000, filters)] == ids


async def test_pages_over_several_queues(manager: QueueManager) -> None:
    for queue in ("p", "q", "r"):
        await manager.dispatch_many([manager.dispatch(jobs.Add(a=n, b=0)).on_queue(queue) for n in range(7)])
        for leased in await manager.pop_batch(queue, 7):
            await leased.fail("no")
    everything = [letter.id for letter in await manager.failed_jobs()]
    assert len(set(everything)) == 21
    for size in (1, 4, 7, 30):
        assert everything == [
            letter.id for at in range(0, 21, size) for letter in await manager.failed_jobs(None, at, size)
        ]


async def test_a_late_page_and_a_replay_take_few_round_trips(manager: QueueManager) -> None:
    await dead_letters(manager, 1_000)
    await manager.job((await manager.failed_jobs(limit=1))[0].id)
    trips: list[ev.OperationDone] = []
    manager.bus.subscribe(ev.OperationDone, trips.append)
    assert len(await manager.failed_jobs(offset=900, limit=50)) == 50
    assert len(trips) <= 5
    trips.clear()
    assert len(await manager.failed_jobs(None, 900, 50, Filters(tag="none"))) == 0
    assert len(trips) <= 30
    trips.clear()
    assert await manager.retry_all_failed() == 1_000
    assert len(trips) <= 40


# --- traces -------------------------------------------------------------------------------------------------------------


async def test_the_last_known_trace(manager: QueueManager) -> None:
    job = await manager.dispatch(jobs.Add(a=1, b=1))
    assert (await manager.job(job)).last_trace_id == ""
    letter = await manager.inspector.envelope(str(job))
    assert letter is not None
    letter.hdr = Headers(tp=TRACES[0])
    await write("job", envelope.encode(letter))(manager, str(job))
    record = await manager.job(job)
    assert (record.trace_id, record.last_trace_id) == (f"{1:032x}", f"{1:032x}")
    for trace in (TRACES[1], TRACES[2], ""):
        await push("errors", msgspec.json.encode({"type": "E", "at": 1, "trace": trace}))(manager, str(job))
    record = await manager.job(job)
    assert [error.trace for error in record.errors] == [TRACES[1], TRACES[2], ""]
    assert (record.trace_id, record.last_trace_id) == (f"{1:032x}", f"{3:032x}")


async def test_what_is_no_job_id_is_not_found(manager: QueueManager) -> None:
    await manager.store.client.zadd(manager.store.keys.of("dead", QUEUE), {"no id": 1})
    await manager.store.client.sadd(manager.store.keys.of("queues"), QUEUE)
    assert await manager.failed_jobs() == []
    with pytest.raises(JobNotFound):
        await manager.inspector.job("no id")
    with pytest.raises(JobNotFound):
        await manager.job(uuid4())
