"""What the exporter shows of consequences, made by real jobs that are over in one shard and awaited in another."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from rf_jobs import Job, JobContext, JobsSettings, QueueManager, Settings
from rf_jobs.store.calls import Left
from rf_jobs_exporter.app import create_app


class Follows(Job):
    def handle(self, ctx: JobContext) -> None:
        return


def settings(url: str, shards: int) -> Settings:
    placed = {"here": 0, "there": shards - 1}
    return Settings(jobs=JobsSettings(redis_url=url, shards=shards, queue_shards=placed))


async def shown(wanted: Settings) -> tuple[float, float]:
    """Those that are still to be drawn, and those that could not be."""
    async with TestClient(TestServer(create_app(wanted, token=""))) as client, client.get("/metrics") as answer:
        found = {
            sample.name: sample.value
            for family in text_string_to_metric_families(await answer.text())
            for sample in family.samples
        }
    return found["rf_consequences_unsettled"], found["rf_consequences_skipped"]


async def nothing() -> Left:
    return Left(0)


async def test_what_waits_for_another_shard_is_counted_until_it_is_there(redis_url: str) -> None:
    wanted = settings(redis_url, 2)
    async with QueueManager(wanted) as manager:
        carry, manager.lifecycle._carry = manager.lifecycle._carry, nothing  # type: ignore[method-assign]
        parent = await manager.dispatch_to(Follows(), "here")
        await manager.dispatch_to(Follows(), "there").depends_on(parent)
        waiting = await shown(wanted)
        manager.lifecycle._carry = carry  # type: ignore[method-assign]
        await manager.lifecycle.settle()
        assert (waiting, await shown(wanted)) == ((1, 0), (0, 0))


@pytest.mark.parametrize("shards", [1, 3])
async def test_what_could_not_be_drawn_is_counted_over_all_shards(redis_url: str, shards: int) -> None:
    wanted = settings(redis_url, shards)
    async with QueueManager(wanted) as manager:
        store = manager.store
        for keys in store.shards.keys:
            await store.client.rpush(keys.of("outbox"), '["nonsense"]', '["more"]')
        waiting = await shown(wanted)
        await manager.lifecycle.settle()
        over = await shown(wanted)
        skipped = await store.run(store.commands.skipped())
        assert len(skipped) == over[1]
    assert (waiting, over) == ((2 * shards, 0), (0, 2 * shards))
