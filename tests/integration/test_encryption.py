"""Encrypted fields and payloads, on a real server: what is seen where, and what happens without the key."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
import redis
from click.testing import CliRunner
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from rf_jobs import (
    Chain,
    Discard,
    ExecutionFailed,
    Job,
    JobContext,
    JobError,
    MissingKey,
    QueueManager,
    Settings,
    Snooze,
    State,
    TelemetrySettings,
    WorkerConfig,
    WorkerPool,
)
from rf_jobs.cli.app import app
from rf_jobs.model import codec, limits
from rf_jobs.model.events import DispatchRejected, Event, JobDied, JobParked, JobUnparked
from rf_jobs.telemetry import telemetry
from rf_jobs.telemetry.logs import LifecycleLog
from tests.support.sealed import CANARY, QUEUE, Apart, Follows, Patient, Secret, Together, key, settings, stored, write
from tests.support.tracing import Memory
from tests.support.waiting import until

K1, K2 = key("k1"), key("k2")
CONFIG = WorkerConfig(queues=[QUEUE], lease=1, sleep=0.2)


@asynccontextmanager
async def working(target: Settings) -> AsyncGenerator[QueueManager]:
    async with QueueManager(target) as manager, WorkerPool(CONFIG, manager):
        yield manager


def all_bytes(url: str) -> bytes:
    """Whatever the server holds."""
    with redis.Redis.from_url(url) as client:
        return b"\n".join(_flat([_value(client, name) for name in client.scan_iter("*")]))


def _value(client: redis.Redis, name: Any) -> Any:
    readers: dict[bytes, Any] = {
        b"string": lambda: client.get(name), b"hash": lambda: client.hgetall(name), b"list": lambda: client.lrange(name, 0, -1),
        b"set": lambda: client.smembers(name), b"zset": lambda: client.zrange(name, 0, -1),
    }  # fmt: skip
    return [name, readers[cast("bytes", client.type(name))]()]


def _flat(value: Any) -> list[bytes]:
    if isinstance(value, bytes):
        return [value]
    inner = [part for pair in value.items() for part in pair] if isinstance(value, dict) else value or ()
    return [part for each in inner for part in _flat(each)]


def hides(data: bytes | str) -> bool:
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    return CANARY not in text and json.dumps(CANARY)[1:-1] not in text and "canary" not in text


async def test_only_the_field_is_sealed_and_the_handler_sees_it(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, K1)) as manager:
        job = Patient(number=7, name=CANARY, history={CANARY: [CANARY, "x"]})
        job_id = await manager.dispatch(job)
        assert hides(all_bytes(redis_url))
        record = await manager.job(job_id)
        assert record.payload == {"number": 7, "name": "***", "history": "***", "ward": "A"}
        assert repr(job) == "Patient(number=7, name=***, history=***, ward='A')"
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(job_id, 10) == [7, len(CANARY), {CANARY: [CANARY, "x"]}, "A"]


async def test_nothing_of_an_encrypted_job_is_readable_anywhere(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Event] = []
    logging.getLogger("rf_jobs").setLevel(logging.DEBUG)
    async with QueueManager(settings(redis_url, K1)) as manager:
        manager.bus.subscribe(Event, seen.append)
        LifecycleLog(manager.bus, redact=False)
        job_id = await manager.dispatch(Secret(text=CANARY))
        lost = await manager.dispatch(Secret(text=CANARY, fail=True))
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(job_id, 10) == f"{CANARY} again"
            with pytest.raises(ExecutionFailed) as caught:
                await manager.wait(lost, 10)
        assert hides("".join(traceback.format_exception(caught.value)))
        assert hides(all_bytes(redis_url))
        record = await manager.job(job_id)
        assert record.payload == "***"
        assert record.result == f"{CANARY} again"
        assert record.progress is not None
        assert record.progress.message == f"half of {CANARY}"
        assert [line.message for line in await manager.job_logs(job_id)] == [f"working on {CANARY}"] * 2
        assert [line.fields for line in await manager.job_logs(job_id)] == [{"about": CANARY}] * 2
        assert record.errors[0].message == "not with ***"
        assert (await manager.job(lost)).errors[-1].message == "never with ***"
        assert all(hides(repr(event)) for event in seen)
        ours = [r.getMessage() for r in caplog.records if r.name != "rf_jobs.job"]
        assert ours
        assert all(map(hides, ours))
    async with QueueManager(settings(redis_url)) as stranger:
        record = await stranger.job(job_id)
        assert (record.payload, record.result, record.has_result) == ("***", "***", True)
        assert record.progress is not None
        assert (record.progress.percentage, record.progress.message) == (50, "***")
        assert [line.message for line in await stranger.job_logs(job_id)] == ["***"] * 2
        with pytest.raises(MissingKey, match="sealed with the key k1#"):
            await stranger.wait(job_id, 5)


async def test_a_job_process_opens_and_seals_too(redis_url: str) -> None:
    async with working(settings(redis_url, K1)) as manager:
        job_id = await manager.dispatch(Apart(text=CANARY))
        assert await manager.wait(job_id, 30) == CANARY.upper()
        assert [line.message for line in await manager.job_logs(job_id)] == [f"apart with {CANARY}"]
        lost = await manager.dispatch(Apart(text=CANARY, fail=True))
        with pytest.raises(ExecutionFailed, match=r"what is \*\*\*"):
            await manager.wait(lost, 30)
        assert hides(all_bytes(redis_url).lower())


async def test_watchers_see_it_opened(redis_url: str) -> None:
    async with working(settings(redis_url, K1)) as manager:
        job_id = await manager.dispatch(Secret(text=CANARY))
        said = [str(update) async for update in manager.watch(job_id)]
        assert any(f"half of {CANARY}" in line for line in said)
        assert any(f"working on {CANARY}" in line for line in said)


async def test_without_a_key_the_dispatch_is_refused(redis_url: str) -> None:
    refused: list[DispatchRejected] = []
    async with QueueManager(settings(redis_url)) as manager:
        manager.bus.subscribe(DispatchRejected, refused.append)
        with pytest.raises(MissingKey, match=r"Patient has encrypted fields \(name, history\).*rf-jobs keys new"):
            await manager.dispatch(Patient(number=1, name=CANARY))
        with pytest.raises(MissingKey, match="Secret is encrypted"):
            await manager.dispatch_many([Secret(text=CANARY)])
        assert [event.reason for event in refused] == ["MissingKey"] * 2
        assert await manager.counts(QUEUE) == dict.fromkeys(await manager.counts(QUEUE), 0)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ((), "unknown_key: it is sealed with the key k1#"),
        ((K2,), "not in encryption_keys of [jobs.security] here (keys: k2#"),
        ((key("k1", 9),), "the key 'k1' here has another secret"),
    ],
    ids=["none", "another", "the same id"],
)
async def test_a_job_waits_parked_for_a_worker_with_its_key(redis_url: str, keys: tuple[str, ...], why: str) -> None:
    parked: list[JobParked] = []
    unparked: list[JobUnparked] = []
    async with working(settings(redis_url, *keys)) as ignorant:
        ignorant.bus.subscribe(JobParked, parked.append)
        ignorant.bus.subscribe(JobUnparked, unparked.append)
        async with QueueManager(settings(redis_url, K1)) as client:
            ids = [await client.dispatch(Patient(number=1, name=CANARY)), await client.dispatch(Secret(text=CANARY))]

            async def both_parked() -> bool:
                return [(await client.job(each)).state for each in ids] == ["parked", "parked"]

            await until(both_parked, "both are parked")
            records = [await client.job(each) for each in ids]
            assert all(why in record.reason and record.attempt == 0 for record in records), records
            assert all(hides(event.reason) for event in parked)
            # The worker's upkeep looks at them, more than once, and leaves them where they are.
            async with WorkerPool(CONFIG, ignorant) as other:
                for _ in range(3):
                    await other._caretaker.round()
            assert not unparked
            assert await both_parked()
            async with WorkerPool(CONFIG, client):
                assert await client.wait(ids[0], 20) == [1, len(CANARY), None, "A"]
                assert await client.wait(ids[1], 20) == f"{CANARY} again"


async def test_what_nobody_opens_in_time_is_a_dead_letter_that_says_so(redis_url: str) -> None:
    died: list[JobDied] = []
    config = WorkerConfig(queues=[QUEUE], lease=1, sleep=0.2, park_ttl=0)
    async with QueueManager(settings(redis_url, K1)) as client, QueueManager(settings(redis_url)) as ignorant:
        job_id = await client.dispatch(Patient(number=1, name=CANARY))
        ignorant.bus.subscribe(JobDied, died.append)
        async with WorkerPool(config, ignorant):
            with pytest.raises(ExecutionFailed, match="what it takes to open it"):
                await client.wait(job_id, 20)
        record = await client.job(job_id)
        assert (record.state, record.reason) == ("dead", "unknown_key")
        assert [event.reason for event in died] == ["unknown_key"]
        assert await client.retry_failed(job_id)
        async with WorkerPool(CONFIG, client):
            assert await client.wait(job_id, 20) == [1, len(CANARY), None, "A"]


async def test_keys_are_rotated(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, K1)) as before:
        old = [await before.dispatch(Secret(text="old")), await before.dispatch(Patient(number=1, name="old"))]
    async with working(settings(redis_url, K2, K1)) as manager:
        new = await manager.dispatch(Secret(text="new"))
        assert await manager.wait(old[0], 10) == "old again"
        assert await manager.wait(old[1], 10) == [1, 3, None, "A"]
        assert await manager.wait(new, 10) == "new again"
        kept = await manager.store.run(manager.store.commands.kept("result", str(old[0])))
        assert kept is not None
        assert kept.startswith(b"sealed:k2#"), "what is sealed now is sealed with the first key"


async def tamper(manager: QueueManager, job_id: UUID, change: Any) -> None:
    """Rewrite a job's envelope."""
    letter = json.loads(await stored(manager, job_id))
    change(letter)
    await write(manager, job_id, json.dumps(letter).encode())


async def test_what_was_tampered_with_is_a_dead_letter(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, K1)) as manager:
        ids = await manager.dispatch_many([Patient(number=at, name=f"{CANARY}{at}") for at in range(6)])
        others = await manager.dispatch_many([Secret(text=CANARY), Secret(text=CANARY)])
        whole = json.loads(await stored(manager, others[0]))
        first = json.loads(await stored(manager, ids[0]))

        def flip(letter: Any) -> None:
            box = letter["args"]["name"]
            letter["args"]["name"] = box[:20] + ("A" if box[20] != "A" else "B") + box[21:]

        await tamper(manager, ids[0], flip)
        await tamper(
            manager, ids[1], lambda letter: letter["args"].update(name=first["args"]["name"])
        )  # of another job
        await tamper(
            manager, ids[2], lambda letter: letter["args"].update(history=letter["args"]["name"])
        )  # another field
        await tamper(manager, ids[3], lambda letter: letter["args"].update(name="no base64!"))
        await tamper(manager, ids[4], lambda letter: letter["args"].update(name=7))
        await tamper(manager, ids[5], lambda letter: letter["args"].pop("name"))
        await tamper(manager, others[1], lambda letter: letter.update(args=whole["args"]))
        async with WorkerPool(CONFIG, manager):
            for each in [*ids, others[1]]:
                with pytest.raises(ExecutionFailed, match=r"is a dead letter after 1 attempts.*TamperedPayload"):
                    await manager.wait(each, 10)
                assert (await manager.job(each)).reason == "tampered"
            assert await manager.wait(others[0], 10) == f"{CANARY} again"
        assert hides(all_bytes(redis_url))


async def test_a_job_from_before_its_class_was_encrypted_still_runs(redis_url: str) -> None:
    def plain(letter: Any) -> None:
        assert letter.pop("enc")["key"].startswith("k1#")
        letter.update(v=1, args={"text": CANARY})

    async with QueueManager(settings(redis_url, K1)) as manager:
        job_id = await manager.dispatch(Secret(text="x"))
        await tamper(manager, job_id, plain)
        async with QueueManager(settings(redis_url)) as ignorant, WorkerPool(CONFIG, ignorant):

            async def parked() -> bool:
                return (await manager.job(job_id)).state == "parked"

            await until(parked, "its result could not be sealed, so it is parked")
        async with WorkerPool(CONFIG, manager):
            assert await manager.wait(job_id, 10) == f"{CANARY} again"
        kept = await manager.store.run(manager.store.commands.kept("result", str(job_id)))
        assert kept is not None
        assert kept.startswith(b"sealed:"), "what becomes of it is sealed"


async def test_the_same_job_sent_again_is_the_same_job(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, K1)) as manager:
        job = Patient(number=1, name=CANARY)
        job_id = await manager.dispatch(job)
        assert await manager.dispatch(job).with_id(job_id) == job_id
        assert (await manager.queue(QUEUE)).ledger["deduplicated"] == 1


async def test_a_consumer_by_hand_opens_and_seals(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, K1)) as manager:
        ids = [await manager.dispatch(Secret(text=CANARY)), await manager.dispatch(Patient(number=1, name=CANARY))]
        async with QueueManager(settings(redis_url)) as ignorant:
            assert await ignorant.pop_batch(QUEUE, 1) == []
            assert (await manager.job(ids[0])).state == "parked"
        (leased,) = await manager.pop_batch(QUEUE, 1)
        assert leased.job == Patient(number=1, name=CANARY)
        await leased.complete(CANARY)
        await manager.store.run(manager.store.commands.unpark(QUEUE, [str(ids[0])]))
        (leased,) = await manager.pop_batch(QUEUE, 1)
        assert leased.job == Secret(text=CANARY)
        await leased.complete({"for": CANARY})
        assert await manager.wait(ids[0], 5) == {"for": CANARY}
        kept = await manager.store.run(manager.store.commands.kept("result", str(ids[0])))
        assert kept is not None
        assert hides(kept)


class Quotes(Job, queue=QUEUE, name="sealed:Quotes", max_attempts=1, encrypt=True):
    number: int
    words: list[str]

    async def handle(self, ctx: JobContext) -> None:
        raise KeyError(f"{self.words[0]!r} of {self.number}")

    async def failed(self, ctx: JobContext, error: Exception) -> None:
        raise ValueError(f"and again {self.words[0]}")


async def test_what_errors_quote_is_masked_in_logs_too(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with working(settings(redis_url, K1)) as manager:
        job_id = await manager.dispatch(Quotes(number=123456, words=[CANARY, "no"]))
        with pytest.raises(ExecutionFailed, match=r"\*\*\*") as caught:
            await manager.wait(job_id, 10)
        assert hides(caught.value.traceback)
        assert "123456" not in caught.value.traceback
        assert any("failed() of job" in line and hides(line) for line in caplog.messages)
        assert all(map(hides, caplog.messages))


async def test_a_refused_payload_is_not_quoted(redis_url: str) -> None:
    wrong: Any = {"number": 1, "name": [CANARY]}
    worse: dict[str, Any] = {"number": "one", "name": "x"}
    async with QueueManager(settings(redis_url, K1)) as manager:
        with pytest.raises(Exception, match=r"field 'name.*not shown") as caught:
            await manager.dispatch(Patient(**wrong))
        assert hides("".join(traceback.format_exception(caught.value)))
        with pytest.raises(Exception, match=r"field 'number': expected `int`"):
            await manager.dispatch(Patient(**worse))


async def test_a_blocking_dispatch_seals_too(redis_url: str) -> None:
    """``.sync()`` has a manager of its own: it must seal too."""
    async with working(settings(redis_url, K1)) as manager:
        job_id = manager.dispatch(Secret(text=CANARY)).sync()
        assert await manager.wait(job_id, 10) == f"{CANARY} again"
        assert hides(all_bytes(redis_url))


async def test_a_unique_lock_gives_nothing_away(redis_url: str) -> None:
    """Without the key nobody can try out what the field may hold."""
    async with QueueManager(settings(redis_url, K1)) as manager, QueueManager(settings(redis_url, K2)) as other:
        job = Patient(number=1, name=CANARY)
        first = await manager.dispatch(job).unique_for(60)
        assert await manager.dispatch(job).unique_for(60) == first
        assert await manager.unique_holder(manager.dispatch(job).unique_for(60)) == first
        assert await other.unique_holder(other.dispatch(job).unique_for(60)) is None
        entry = Patient.__job_class__
        guess = limits.unique_digest(entry, job, codec.encode_payload(job, entry), ())
        assert guess.encode() not in all_bytes(redis_url)
        await manager.clear(QUEUE)


async def test_spans_and_metrics_say_nothing_of_it(redis_url: str) -> None:
    exporter = Memory()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    wanted = TelemetrySettings(sample_ratio=1.0, metrics=True)
    manager = QueueManager(replace(settings(redis_url, K1), telemetry=wanted))
    pool = WorkerPool(CONFIG, manager)
    async with manager, telemetry(manager, wanted, pool=pool, tracer_provider=provider), pool:
        await manager.dispatch(Secret(text=CANARY)).result(10)
        lost = await manager.dispatch(Secret(text=CANARY, fail=True))
        with pytest.raises(ExecutionFailed):
            await manager.wait(lost, 10)
    spans = exporter.get_finished_spans()
    assert {"process sealed", "retry sealed", "dead_letter sealed"} <= {span.name for span in spans}
    assert all(hides(span.to_json()) for span in spans)
    assert hides(all_bytes(redis_url)), "the metrics lie there too"
    provider.shutdown()


async def test_the_next_step_of_a_chain_gets_a_sealed_result(redis_url: str) -> None:
    async with QueueManager(settings(redis_url, K1)) as manager:
        chain = Chain([Apart(text=CANARY), Follows()])
        await manager.send_group(chain)
        async with WorkerPool(CONFIG, manager):
            assert await manager.batch(chain.id).wait(40) == "completed"
        (last,) = [
            record
            for record in await manager.inspector.page(State.COMPLETED, QUEUE, 0, 10)
            if record.job_class.endswith("Follows")
        ]
        assert last.result == len(CANARY)
        assert hides(all_bytes(redis_url).lower())


async def test_batch_consumers_open_and_seal(redis_url: str) -> None:
    async with working(
        settings(redis_url, K1, offload_above_bytes=1, offload_store="tests.support.sealed:Shelf")
    ) as manager:
        ids = await manager.dispatch_many([Together(text=f"{CANARY} {at}") for at in range(5)])
        assert [await manager.wait(each, 20) for each in ids] == [f"{CANARY} {at}" for at in range(5)]
        assert hides(all_bytes(redis_url))
        assert await manager.dispatch(Apart(text=CANARY)).result(30) == CANARY.upper()


class Later(Job, queue=QUEUE, name="sealed:Later", encrypt=True):
    text: str
    give_up: bool = False

    async def handle(self, ctx: JobContext) -> None:
        first = await ctx.step("think", lambda: f"{self.text} {ctx.attempt} {ctx.state}")
        if not ctx.state:
            await ctx.checkpoint(self.text)
            raise Snooze(0.1, f"later with {self.text}")
        assert first == f"{self.text} 1 None", "what an earlier run kept is opened again"
        raise Discard(f"never mind {self.text}")


async def test_steps_are_sealed_and_reasons_are_masked(redis_url: str) -> None:
    seen: list[Event] = []
    async with working(settings(redis_url, K1)) as manager:
        manager.bus.subscribe(Event, seen.append)
        job_id = await manager.dispatch(Later(text=CANARY))
        with pytest.raises(JobError, match=r"ended as cancelled: never mind \*\*\*"):
            await manager.wait(job_id, 10)
        assert [moment.detail for moment in (await manager.job(job_id)).timeline if moment.event == "snoozed"] == [
            "later with ***"
        ]
        assert hides(all_bytes(redis_url))
        assert all(hides(repr(event)) for event in seen)


def test_the_command_line_shows_nothing_even_with_the_key(redis_url: str, tmp_path: Path) -> None:
    async def complete() -> UUID:
        async with working(settings(redis_url, K1)) as manager:
            job_id = await manager.dispatch(Secret(text=CANARY))
            await manager.wait(job_id, 10)
            return job_id

    job_id = str(asyncio.run(complete()))
    env = {"RF_JOBS_REDIS_URL": redis_url, "RF_JOBS_SECURITY_ENCRYPTION_KEYS": K1, "RF_JOBS_TELEMETRY_METRICS": "false"}
    for words in (
        ["jobs", "show", job_id, "--payload"],
        ["jobs", "show", job_id, "--payload", "--json"],
        ["jobs", "list", "--queue", QUEUE, "--state", "completed", "--payload"],
        ["jobs", "wait", job_id],
        ["jobs", "wait", job_id, "--json"],
    ):
        done = CliRunner().invoke(app, words, env=env)
        assert done.exit_code == 0, done.output
        assert hides(done.output), words
        assert "***" in done.output, words
