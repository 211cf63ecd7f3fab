"""Signed envelopes on a real server: what a worker does with those that are not, or not rightly."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from rf_jobs import ConfigError, ExecutionFailed, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.model import codec
from rf_jobs.model.events import JobDied
from rf_jobs.telemetry import names
from rf_jobs.telemetry.cells import Counter, MetricStore
from rf_jobs.telemetry.metrics import UNKNOWN, Metrics
from rf_jobs.words.ids import new_id
from tests.support.jobs import QUEUE as PLAIN
from tests.support.jobs import Add
from tests.support.sealed import QUEUE, Secret, key, settings, stored, write
from tests.support.waiting import until

S1, S2, K1 = key("s1"), key("s2"), key("k1")
CONFIG = WorkerConfig(queues=[QUEUE, PLAIN], lease=1, sleep=0.2)


async def test_what_is_signed_runs(redis_url: str) -> None:
    signed = settings(redis_url, K1, signing=(S1,), required=True)
    async with QueueManager(signed) as manager, WorkerPool(CONFIG, manager):
        assert await manager.dispatch(Add(a=1, b=2)).result(10) == 3
        assert await manager.dispatch(Secret(text="x")).result(10) == "x again"
        ids = await manager.dispatch_many([Add(a=1, b=at) for at in range(5)])
        assert [await manager.wait(each, 10) for each in ids] == [1, 2, 3, 4, 5]


def changed(data: bytes) -> bytes:
    return data.replace(b'"a":1', b'"a":2')


def unsigned(data: bytes) -> bytes:
    letter = json.loads(data)
    del letter["sig"]
    return json.dumps(letter).encode()


def made_up(data: bytes) -> bytes:
    letter = json.loads(data)
    letter["sig"] = letter["sig"][:-44] + "A" * 43 + "="
    return json.dumps(letter, separators=(",", ":")).encode()


def more_behind(data: bytes) -> bytes:
    return data[:-1] + b',"args":{"a":5,"b":5}}'


@pytest.mark.parametrize("how", [changed, unsigned, made_up, more_behind], ids=lambda how: how.__name__)
async def test_a_forged_envelope_is_buried_unread(
    redis_url: str, how: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[JobDied] = []
    decoded: list[object] = []
    real = codec.decode_payload

    def noted(*args: Any) -> object:
        decoded.append(args)
        return real(*args)

    monkeypatch.setattr(codec, "decode_payload", noted)
    async with QueueManager(settings(redis_url, signing=(S1,), required=True)) as manager:
        cells = MetricStore()
        Metrics(manager.bus, cells, worker=True, known=[])
        manager.bus.subscribe(JobDied, died.append)
        job_id = await manager.dispatch(Add(a=1, b=2))
        before = await stored(manager, job_id)
        assert how(before) != before
        await write(manager, job_id, how(before))
        async with WorkerPool(CONFIG, manager):
            with pytest.raises(ExecutionFailed, match="ForgedEnvelope: the envelope"):
                await manager.wait(job_id, 10)
        assert decoded == []
        assert [(event.reason, event.job_class, event.attempt) for event in died] == [("forged", "", 1)]
        assert (await manager.job(job_id)).reason == "forged"
        counted = {(m.name, labels): cell for m, labels, cell in cells.cells() if isinstance(cell, Counter)}
        assert counted[names.JOBS_FAILED.name, (PLAIN, UNKNOWN, "forged")].value == 1


async def test_an_envelope_copied_to_another_job_is_forged(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, signing=(S1,), required=True)) as manager:
        good, bad = await manager.dispatch_many([Add(a=1, b=2), Add(a=3, b=4)])
        await write(manager, bad, await stored(manager, good))
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(good, 10) == 3
            with pytest.raises(ExecutionFailed, match="somebody copied it here"):
                await manager.wait(bad, 10)
        assert (await manager.job(bad)).reason == "forged"


async def test_signatures_come_in_step_by_step(redis_url: str) -> None:
    """First clients sign, then workers have the key, then they insist on it."""
    async with QueueManager(settings(redis_url, signing=(S1,))) as signing, QueueManager(redis_url) as plain:
        async with WorkerPool(CONFIG, plain):
            assert await signing.dispatch(Add(a=1, b=2)).result(10) == 3
        async with WorkerPool(CONFIG, signing):
            assert await plain.dispatch(Add(a=1, b=3)).result(10) == 4
            wrong = await signing.dispatch(Add(a=1, b=4)).delay(0.2)
            await write(signing, wrong, changed(await stored(signing, wrong)))
            with pytest.raises(ExecutionFailed, match="ForgedEnvelope"):
                await signing.wait(wrong, 10)
        async with (
            QueueManager(settings(redis_url, signing=(S1,), required=True)) as strict,
            WorkerPool(CONFIG, strict),
        ):
            refused = await plain.dispatch(Add(a=1, b=5))
            with pytest.raises(ExecutionFailed, match="not signed"):
                await plain.wait(refused, 10)
            assert await signing.dispatch(Add(a=1, b=6)).result(10) == 7


async def test_signing_keys_are_rotated(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, signing=(S1,))) as before:
        job_id = await before.dispatch(Add(a=1, b=2))
    async with QueueManager(settings(redis_url, signing=(S2, S1), required=True)) as manager:
        new = await manager.dispatch(Add(a=1, b=3))
        assert b'"sig":"s2#' in await stored(manager, new)
        async with WorkerPool(CONFIG, manager):
            assert (await manager.wait(job_id, 10), await manager.wait(new, 10)) == (3, 4)


async def test_a_job_signed_with_a_key_that_is_not_here_waits_parked(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, signing=(S2, S1), required=True)) as ahead:
        job_id = await ahead.dispatch(Add(a=1, b=2))

        async def parked() -> bool:
            return (await ahead.job(job_id)).state == "parked"

        behind = QueueManager(settings(redis_url, signing=(S1,), required=True))
        async with behind, WorkerPool(CONFIG, behind) as pool:
            await until(parked, "it is parked")
            assert "unknown_key: it is signed with the key s2#" in (await ahead.job(job_id)).reason
            await pool._caretaker.round()
            assert await parked()
        async with WorkerPool(CONFIG, ahead):
            assert await ahead.wait(job_id, 10) == 3


async def test_a_consumer_by_hand_checks_too(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, signing=(S1,), required=True)) as manager:
        good, bad = await manager.dispatch_many([Add(a=1, b=2), Add(a=1, b=3)])
        await write(manager, bad, changed(await stored(manager, bad)))
        assert [leased.id for leased in await manager.pop_batch(PLAIN, 5)] == [good]
        assert (await manager.job(bad)).reason == "forged"


def test_requiring_signatures_without_a_key_is_refused(redis_url: str) -> None:
    with pytest.raises(ConfigError, match="require_signatures is on, and there is no key"):
        QueueManager(settings(redis_url, required=True))


async def test_a_forged_envelope_of_a_later_version_is_never_run(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, signing=(S1,), required=True)) as manager:
        job_id = await manager.dispatch(Add(a=1, b=2))
        await write(manager, job_id, b'{"v":99,"id":"%b"}' % str(new_id()).encode())
        async with WorkerPool(CONFIG, manager):

            async def parked() -> bool:
                return (await manager.job(job_id)).state == "parked"

            await until(parked, "it is parked, as of any later version")
