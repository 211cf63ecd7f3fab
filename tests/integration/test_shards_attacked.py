"""What attacks on shards have found: namespaces that would share keys, and keys that somebody has damaged."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rf_jobs import Chain, Job, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.store.keys import Shards
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shard_calls import Words, one_way
from rf_jobs.words.config_settings import JobsSettings, Settings
from rf_jobs.words.errors import BackendError, ConfigError
from tests.support.flow_jobs import Note, Tells, seen

PLACES = {"one": 1, "two": 2, "zero": 0}


def settings(url: str, namespace: str = "rf", shards: int = 4) -> Settings:
    places = PLACES if shards > 1 else None
    return Settings(jobs=JobsSettings(redis_url=url, namespace=namespace, shards=shards, queue_shards=places))


@pytest.mark.parametrize(
    ("first", "second"),
    [(("ns/1", 1), ("ns", 4)), (("ns/1", 4), ("ns", 4)), (("ns", 4), ("ns/1", 4)), (("ns", 4), ("ns/3", 1))],
)
async def test_a_namespace_is_no_part_of_another(
    redis_url: str, first: tuple[str, int], second: tuple[str, int]
) -> None:
    async with QueueManager(settings(redis_url, *first)) as manager:
        await manager.dispatch_to(Note(what="mine"), "one")
        with pytest.raises(BackendError, match="use another namespace"):
            await QueueManager.connect(settings(redis_url, *second))
        assert await manager.size("one") == 1


def test_who_is_refused_is_refused_again(redis_url: str) -> None:
    for shards, is_welcome in ((4, True), (1, False)):
        store = SyncStore(redis_url, Shards("rf", shards))
        for _ in range(2):
            if is_welcome:
                store.run(store.commands.time())
            else:
                with pytest.raises(BackendError, match="divided into 4 shards"):
                    store.run(store.commands.time())
        store.close()


@pytest.mark.parametrize("shards", [0, -1, 2000, "x"])
def test_settings_made_by_hand_are_looked_at(shards: Any) -> None:
    with pytest.raises(ConfigError, match=r"jobs\.shards is"):
        QueueManager(Settings(jobs=JobsSettings(shards=shards)))


@pytest.mark.parametrize("family", ["outboxes", "outbox:1", "outbox:2", "heard", "homes"])
async def test_keys_of_another_type_lose_no_job(redis_url: str, family: str) -> None:
    async with QueueManager(settings(redis_url)) as manager:
        for keys in manager.store.shards.keys:
            await manager.store.client.set(keys.prefix + family, "made by hand")
        parent = await manager.dispatch_to(Note(what="parent"), "one")
        async with WorkerPool(WorkerConfig(queues=[*PLACES], sleep=5), manager):
            assert await manager.dispatch_to(Tells(), "two").depends_on(parent).result(10) == "parent"


async def test_strangers_among_the_outboxes_keep_nobody_waiting(redis_url: str) -> None:
    async with QueueManager(settings(redis_url)) as manager:
        for keys in manager.store.shards.keys:
            await manager.store.client.sadd(keys.of("outboxes"), "9", "x")
            for stranger in ("9", "x"):
                await manager.store.client.xadd(keys.of("outbox", stranger), {"m": '["await", "a", "b"]'})
        parent = await manager.dispatch_to(Note(what="parent"), "one")
        async with WorkerPool(WorkerConfig(queues=[*PLACES], sleep=5), manager):
            assert await manager.dispatch_to(Tells(), "two").depends_on(parent).result(10) == "parent"


class _Grows(Job, queue="one"):
    how: str

    async def handle(self, ctx: Any) -> None:
        put = ctx.chain.append if self.how == "append" else ctx.chain.insert
        await put(ctx.manager.dispatch_to(_Slow(), "two"))


class _Slow(Job, queue="two"):
    async def handle(self, ctx: Any) -> None:
        await asyncio.sleep(0.5)
        seen.append("more")


@pytest.mark.parametrize("how", ["append", "insert"])
async def test_a_step_grows_a_chain_that_is_still_being_dispatched(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    seen.clear()
    async with QueueManager(settings(redis_url)) as manager, QueueManager(settings(redis_url)) as dispatching:
        coalescer = dispatching.placer._coalescer
        at_once = coalescer.send_all

        async def slowly(items: Any) -> Any:
            said = await at_once(items)
            await asyncio.sleep(0.2)
            return said

        monkeypatch.setattr(coalescer, "send_all", slowly)
        async with WorkerPool(WorkerConfig(queues=[*PLACES], sleep=5), manager):
            steps = [("one", _Grows(how=how)), ("two", Note(what="second")), ("zero", Note(what="third"))]
            chain = Chain([dispatching.dispatch_to(job, queue) for queue, job in steps])
            await chain.dispatch(dispatching)
            assert await chain.wait(10) == "completed"
    assert seen == (["second", "third", "more"] if how == "append" else ["more", "second", "third"])


def test_what_is_carried_at_once_does_not_cross() -> None:
    def words(source: int, target: int) -> Words:
        return Words(source, target, [], 0)

    found = [words(1, 3), words(3, 1), words(0, 3), words(3, 2), words(1, 2), words(2, 0)]
    assert [(each.source, each.target) for each in one_way(found)] == [(1, 3), (0, 3), (1, 2)]
    assert one_way(found[1:2]) == found[1:2]
