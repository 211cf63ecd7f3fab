"""Large payloads kept elsewhere, on a real server: files in a folder, and objects of a service that a small stand-in plays."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest

from rf_jobs import (
    BackendError,
    Batch,
    Chain,
    ConfigError,
    DuplicateJob,
    ExecutionFailed,
    FilePayloads,
    MissingPayloadStore,
    ObjectPayloads,
    PayloadStore,
    PayloadTooLarge,
    QueueManager,
    Settings,
    WorkerConfig,
    WorkerPool,
)
from rf_jobs.model.events import DispatchRejected, JobSnoozed
from rf_jobs.worker import opening
from tests.support.sealed import CANARY, QUEUE, Bulky, BulkySecret, files_of, key, settings, stored, write
from tests.support.waiting import until

K1, S1 = key("k1"), key("s1")
CONFIG = WorkerConfig(queues=[QUEUE], lease=1, sleep=0.2)
BLOB = CANARY * 500
"""About 7 kB."""


class Gone(Exception):  # noqa: N818 (as the service calls it)
    """As boto's ``ClientError`` says it."""

    def __init__(self) -> None:
        super().__init__("An error occurred (NoSuchKey)")
        self.response = {"Error": {"Code": "NoSuchKey"}}


class Body:
    """As aiobotocore's ``StreamingBody``: read once, closed by leaving it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.closed = True

    async def read(self) -> bytes:
        return self._data


class Bucket:
    """A service in this process."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.bodies: list[Body] = []
        self.away = False

    def _ask(self) -> None:
        if self.away:
            raise ConnectionError("the service is away")

    async def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> Any:  # noqa: N803 (the service's names)
        self._ask()
        self.objects[Bucket, Key] = Body
        return {"ETag": "x"}

    async def get_object(self, *, Bucket: str, Key: str) -> Any:  # noqa: N803
        self._ask()
        if (Bucket, Key) not in self.objects:
            raise Gone
        self.bodies.append(Body(self.objects[Bucket, Key]))
        return {"Body": self.bodies[-1]}

    async def delete_object(self, *, Bucket: str, Key: str) -> Any:  # noqa: N803
        self._ask()
        self.objects.pop((Bucket, Key), None)


def offloading(redis_url: str, folder: Path | None, *keys: str, grace: float = 0, **more: Any) -> Settings:
    path = None if folder is None else str(folder)
    return settings(
        redis_url, *keys, offload_above_bytes=1000, offload_path=path, offload_grace_seconds=grace, **more
    )  # fmt: skip


@asynccontextmanager
async def working(target: Settings, **options: Any) -> AsyncGenerator[QueueManager]:
    async with QueueManager(target, **options) as manager, WorkerPool(CONFIG, manager):
        yield manager


async def letter_of(manager: QueueManager, job_id: UUID) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await stored(manager, job_id))
    return found


async def test_a_large_payload_goes_to_the_folder_and_comes_back(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path, max_payload_bytes=2000)) as manager:
        small, large = await manager.dispatch_many([Bulky(blob="x"), Bulky(blob=BLOB)])
        letter = await letter_of(manager, large)
        assert letter["v"] == 2
        assert letter["args"] == {}
        (file,) = files_of(tmp_path)
        assert file.name == letter["off"]["ref"]
        assert json.loads(file.read_bytes()) == {"blob": BLOB}
        assert "off" not in await letter_of(manager, small)
        assert (
            await manager.job(large)
        ).payload == f"(offloaded: {letter['off']['size']} bytes in the payload store, {file.name})"
        async with WorkerPool(CONFIG, manager):
            assert (await manager.wait(small, 10), await manager.wait(large, 10)) == (1, len(BLOB))


async def test_it_is_sealed_before_and_signed_after(redis_url: str, tmp_path: Path) -> None:
    target = offloading(redis_url, tmp_path, K1)
    target = replace(target, security=replace(target.security, signing_keys=(S1,), require_signatures=True))
    async with working(target) as manager:
        job_id = await manager.dispatch(BulkySecret(blob=BLOB)).delay(0.1)
        (file,) = files_of(tmp_path)
        assert b"canary" not in file.read_bytes()
        assert (await manager.job(job_id)).payload == "***"
        assert await manager.wait(job_id, 10) == len(BLOB)


async def test_an_object_service_keeps_payloads(redis_url: str) -> None:
    bucket = Bucket()
    async with working(offloading(redis_url, None), payloads=ObjectPayloads(bucket, "jobs", "here/")) as manager:
        job_id = await manager.dispatch(Bulky(blob=BLOB))
        assert next(name for _, name in bucket.objects).startswith(f"here/{job_id}.")
        assert await manager.wait(job_id, 10) == len(BLOB)
        assert [body.closed for body in bucket.bodies] == [True]
        assert await manager.sweep_payloads() == 1
        assert bucket.objects == {}


async def test_the_members_of_groups_are_offloaded_too(redis_url: str, tmp_path: Path) -> None:
    async with working(offloading(redis_url, tmp_path)) as manager:
        chain = Chain([Bulky(blob=BLOB), Bulky(blob=BLOB + "x")])
        batch = Batch([Bulky(blob=BLOB), chain]).then(Bulky(blob="done"))
        await manager.send_group(batch)
        assert len(files_of(tmp_path)) == 3
        assert await manager.batch(batch.id).wait(20) == "completed"
        too_large = Batch([Bulky(blob="x")]).then(Bulky(blob=BLOB * 200))
        with pytest.raises(PayloadTooLarge):
            await manager.send_group(too_large)


async def test_what_is_not_needed_is_swept_and_nothing_else(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        done, waits, dead, cancelled = await manager.dispatch_many([Bulky(blob=BLOB) for _ in range(4)])
        again = await manager.dispatch(Bulky(blob=BLOB)).with_id(waits)  # leaves a payload that no envelope claims
        assert again == waits
        assert len(files_of(tmp_path)) == 5
        await manager.cancel(cancelled)
        for leased in await manager.pop_batch(QUEUE, 3):
            if leased.id == done:
                await leased.complete()
            elif leased.id == dead:
                await leased.fail("for the test")
            else:
                await leased.release()
        assert await manager.sweep_payloads() == 2, "of the completed, and the one that nobody claims"
        kept = {file.name.partition(".")[0] for file in files_of(tmp_path)}
        assert kept == {str(waits), str(dead), str(cancelled)}
        await manager.forget_failed(dead)
        assert await manager.sweep_payloads() == 0, "it is not time to look at them again"
        assert await manager.offload.sweep(0) == 0, "nor now"
        due = await manager.store.run(manager.store.commands.payloads_due(10, 0))
        assert due == []
        await manager.clear(QUEUE)


async def test_a_payload_is_looked_at_again_until_its_job_is_gone(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        await manager.dispatch(Bulky(blob=BLOB))
        for _ in range(2):
            assert await manager.offload.sweep(look_again=0) == 0
        await manager.clear(QUEUE)
        assert await manager.offload.sweep(look_again=0) == 1
        assert files_of(tmp_path) == []
        assert await manager.store.client.exists(manager.store.keys.of("payloads")) == 0


async def test_a_cancelled_job_that_comes_back_still_has_its_payload(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        parent = await manager.dispatch(Bulky(blob="small"))
        child = await manager.dispatch(Bulky(blob=BLOB)).depends_on(parent)
        (leased,) = await manager.pop_batch(QUEUE, 1)
        await leased.fail("for the test")
        assert (await manager.job(child)).state == "cancelled"
        assert await manager.offload.sweep(look_again=0) == 0
        assert await manager.retry_failed(parent)
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(child, 10) == len(BLOB)


async def test_a_dispatch_that_never_came_leaves_nothing(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path, grace=3600)) as patient:
        await patient.offload.store_large([patient.prepare(*patient.dispatch(Bulky(blob=BLOB)).take())])
        assert await patient.sweep_payloads() == 0, "its dispatch may still be on its way"
    async with QueueManager(offloading(redis_url, tmp_path)) as hasty:
        await hasty.offload.store_large([hasty.prepare(*hasty.dispatch(Bulky(blob=BLOB)).take())])
        assert len(files_of(tmp_path)) == 2
        assert await hasty.sweep_payloads() == 1
        await hasty.store.client.delete(hasty.store.keys.of("payloads"))


async def test_a_worker_sweeps_by_itself(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager, WorkerPool(CONFIG, manager) as pool:
        assert await manager.dispatch(Bulky(blob=BLOB)).result(10) == len(BLOB)
        await pool._caretaker.round()
        assert len(files_of(tmp_path)) == 1, "not in every round"
        manager.offload._swept -= 60
        await pool._caretaker.round()
        assert files_of(tmp_path) == []


async def test_a_missing_payload_is_a_dead_letter_that_can_be_replayed(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        job_id = await manager.dispatch(Bulky(blob=BLOB))
        (file,) = files_of(tmp_path)
        away = file.rename(tmp_path / "away")
        async with WorkerPool(CONFIG, manager):
            with pytest.raises(ExecutionFailed, match=r"PayloadLost.*is not in the payload store"):
                await manager.wait(job_id, 10)
            assert (await manager.job(job_id)).reason == "payload_lost"
            away.rename(file)
            assert await manager.retry_failed(job_id)
            assert await manager.wait(job_id, 10) == len(BLOB)


@pytest.mark.parametrize("how", [b"", b"{}", None], ids=["empty", "other", "one byte"])
async def test_a_damaged_payload_is_a_dead_letter(redis_url: str, tmp_path: Path, how: bytes | None) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        job_id = await manager.dispatch(Bulky(blob=BLOB))
        (file,) = files_of(tmp_path)
        data = file.read_bytes()
        file.write_bytes(data.replace(b"c", b"d", 1) if how is None else how)
        async with WorkerPool(CONFIG, manager):
            with pytest.raises(ExecutionFailed, match=r"PayloadLost.*is not what was stored"):
                await manager.wait(job_id, 10)


async def test_another_jobs_payload_is_not_loaded(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        mine, others = await manager.dispatch_many([Bulky(blob=BLOB), Bulky(blob=BLOB + "x")])
        for ref in ((await letter_of(manager, others))["off"], {"ref": "../../etc/passwd", "size": 1, "sha256": "0"}):
            letter = await letter_of(manager, mine)
            letter["off"] = ref
            await write(manager, mine, json.dumps(letter).encode())
            async with WorkerPool(CONFIG, manager):
                with pytest.raises(ExecutionFailed, match=r"PayloadLost.*another job's"):
                    await manager.wait(mine, 10)
                await manager.wait(others, 10)
            assert await manager.retry_failed(mine)
        await manager.clear(QUEUE)


async def test_while_the_store_is_away_jobs_wait_and_lose_no_attempt(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PAYLOAD_RETRY_SECONDS", 0.2)
    snoozed: list[JobSnoozed] = []
    bucket = Bucket()
    async with QueueManager(offloading(redis_url, None), payloads=ObjectPayloads(bucket, "jobs")) as manager:
        manager.bus.subscribe(JobSnoozed, snoozed.append)
        job_id = await manager.dispatch(Bulky(blob=BLOB))
        bucket.away = True
        async with WorkerPool(CONFIG, manager):

            async def waited() -> bool:
                return len(snoozed) > 1

            await until(waited, "it was put off twice")
            assert "the service is away" in snoozed[0].reason
            bucket.away = False
            assert await manager.wait(job_id, 10) == len(BLOB)
        assert (await manager.job(job_id)).attempt == 1


async def test_a_folder_that_is_not_mounted_loses_nothing(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PAYLOAD_RETRY_SECONDS", 0.2)
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    snoozed: list[JobSnoozed] = []
    async with QueueManager(offloading(redis_url, here)) as manager:
        job_id = await manager.dispatch(Bulky(blob=BLOB))
        async with QueueManager(offloading(redis_url, elsewhere)) as other, WorkerPool(CONFIG, other):
            other.bus.subscribe(JobSnoozed, snoozed.append)

            async def waited() -> bool:
                return bool(snoozed)

            await until(waited, "it was put off")
            assert "holds no payloads and never did" in snoozed[0].reason
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(job_id, 10) == len(BLOB)


async def test_a_worker_without_a_store_parks(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path)) as manager:
        job_id = await manager.dispatch(Bulky(blob=BLOB))
        async with QueueManager(redis_url) as other:
            async with WorkerPool(CONFIG, other) as pool:

                async def parked() -> bool:
                    return (await manager.job(job_id)).state == "parked"

                await until(parked, "it is parked")
                assert (await manager.job(job_id)).reason.startswith("no_payload_store: the payload is offloaded")
                await pool._caretaker.round()
                assert await parked()
            with pytest.raises(MissingPayloadStore):
                await other.sweep_payloads()
            assert await other.pop_batch(QUEUE, 1) == []
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(job_id, 10) == len(BLOB)


async def test_a_store_that_is_away_refuses_the_dispatch(redis_url: str) -> None:
    bucket = Bucket()
    bucket.away = True
    rejected: list[DispatchRejected] = []
    async with QueueManager(offloading(redis_url, None), payloads=ObjectPayloads(bucket, "jobs")) as manager:
        manager.bus.subscribe(DispatchRejected, rejected.append)
        with pytest.raises(BackendError, match="the payload store failed \\(put\\): ConnectionError"):
            await manager.dispatch(Bulky(blob=BLOB))
        with pytest.raises(BackendError):
            await manager.dispatch_many([Bulky(blob=BLOB), Bulky(blob="small")])
        assert [event.reason for event in rejected] == ["BackendError"] * 3
        assert await manager.size(QUEUE) == 0
        bucket.away = False
        assert await manager.sweep_payloads() == 2, "what may have been stored is removed"


async def test_the_same_job_sent_again_is_the_same_job(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path, K1)) as manager:
        for job, other in (
            (Bulky(blob=BLOB), Bulky(blob=BLOB + "x")),
            (BulkySecret(blob=BLOB), BulkySecret(blob=BLOB + "x")),
        ):
            job_id = await manager.dispatch(job)
            assert await manager.dispatch(job).with_id(job_id) == job_id
            with pytest.raises(DuplicateJob):
                await manager.dispatch(other).with_id(job_id)
        await manager.clear(QUEUE)
        assert await manager.sweep_payloads() == 6
        assert files_of(tmp_path) == []


async def test_without_offloading_a_large_job_is_refused(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, max_payload_bytes=2000)) as manager:
        with pytest.raises(PayloadTooLarge, match="or set offload_above_bytes"):
            await manager.dispatch(Bulky(blob=BLOB))


async def test_what_is_large_beside_its_payload_is_refused(redis_url: str, tmp_path: Path) -> None:
    async with QueueManager(offloading(redis_url, tmp_path, max_payload_bytes=300)) as manager:
        with pytest.raises(PayloadTooLarge):
            await manager.dispatch(Bulky(blob="x")).tags(*(f"{at}{'t' * 90}" for at in range(5)))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"offload_above_bytes": 10}, "there is no payload store"),
        ({"offload_path": "x", "offload_store": "a:b"}, "both set"),
    ],
)
def test_settings_that_contradict_each_other(redis_url: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        QueueManager(settings(redis_url, **given))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tests.support.sealed:nothing", "can't be had: AttributeError"),
        ("no_such_module:x", "can't be had: ModuleNotFoundError"),
        ("tests.support.sealed:CANARY", "has no put, get and delete"),
        ("tests.support.sealed:key", "can't be had: TypeError"),
    ],
)
async def test_a_store_that_cannot_be_had(redis_url: str, tmp_path: Path, name: str, said: str) -> None:
    """A worker does not start, a dispatch is refused, and whoever only looks is not disturbed."""
    async with QueueManager(offloading(redis_url, tmp_path)) as right:
        await right.dispatch(Bulky(blob=BLOB))
    async with QueueManager(settings(redis_url, offload_above_bytes=1000, offload_store=name)) as wrong:
        assert await wrong.size(QUEUE) == 1
        with pytest.raises(MissingPayloadStore, match=said):
            await wrong.dispatch(Bulky(blob=BLOB))
        with pytest.raises(ConfigError, match=said):
            await WorkerPool(CONFIG, wrong).start()
        assert await wrong.pop_batch(QUEUE, 1) == []
        assert (await wrong.counts(QUEUE))["parked"] == 1
        await wrong.clear(QUEUE)


BUCKET = Bucket()


def made() -> PayloadStore:
    return ObjectPayloads(BUCKET, "made")


async def test_a_store_by_its_name(redis_url: str) -> None:
    target = settings(redis_url, offload_above_bytes=1000, offload_store=f"{__name__}:made")
    async with working(target) as manager:
        assert await manager.dispatch(Bulky(blob=BLOB)).result(10) == len(BLOB)
        assert {bucket for bucket, _ in BUCKET.objects} == {"made"}


async def test_files_are_written_whole_and_names_stay_inside(tmp_path: Path) -> None:
    store = FilePayloads(tmp_path / "not yet there")
    with pytest.raises(BackendError, match="is it mounted"):
        await store.get("abcd.1234")
    await store.put("abcd.1234", b"one")
    await store.put("abcd.1234", b"two")
    assert await store.get("abcd.1234") == b"two"
    assert await store.get("abcd.9999") is None
    await store.delete("abcd.1234")
    await store.delete("abcd.1234")
    assert await store.get("abcd.1234") is None
    assert files_of(tmp_path) == []
    for name in ("../../outside", "/etc/passwd", "a/b/c/d", "", "..", "....", "x" * 201, "a\nbcd"):
        with pytest.raises(ConfigError, match="no name for a payload"):
            await store.put(name, b"x")
