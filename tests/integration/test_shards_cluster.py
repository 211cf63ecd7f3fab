"""Shards on the nodes of a real cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis.crc

from rf_jobs import Batch, Chain, QueueManager, WorkerConfig, WorkerPool
from rf_jobs.store.redis import SyncStore
from tests.integration.test_shards import CONFIG, PLACES, sharded
from tests.support.cluster import NODES, SLOTS, Cluster, small_cluster
from tests.support.flow_jobs import Note, Tells, seen


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with small_cluster() as running:
        yield running


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    nodes.flush()
    seen.clear()
    return nodes


async def test_workflows_over_the_nodes_of_a_cluster(cluster: Cluster) -> None:
    async with QueueManager(sharded(cluster.url)) as manager, WorkerPool(CONFIG, manager):
        batch = Batch([manager.dispatch_to(Note(what=f"{queue} {n}"), queue) for n in range(20) for queue in PLACES])
        chain = Chain([manager.dispatch_to(Note(what="first"), "one"), *(manager.dispatch_to(Tells(), q) for q in ("two", "three"))])  # fmt: skip
        batch.add(chain).then(manager.dispatch_to(Note(what="then"), "two"))
        await batch.dispatch(manager)
        assert await batch.wait(20) == "completed"
        late = await manager.dispatch_to(Note(what="late"), "three")
        assert await manager.wait(late, 10) == "late"
        assert [queue.imbalance for queue in await manager.queues()] == [0] * len(PLACES)
        assert await manager.store.run(manager.store.commands.unsettled()) == 0
        assert len(manager.store._routes.all) > 1
    used = [len(client.keys("*")) for client in cluster.clients()]
    assert all(used[n] > 0 for n in _used_nodes()), used


def _node_of(tag: str) -> int:
    return int(redis.crc.key_slot(tag.encode())) * NODES // SLOTS


def _used_nodes() -> set[int]:
    return {_node_of(tag) for tag in ("rf", "rf/1", "rf/2", "rf/3")}


def test_shards_are_on_several_nodes() -> None:
    assert len(_used_nodes()) > 1, "else these tests would show nothing"


async def test_the_node_that_was_named_need_not_have_anything(cluster: Cluster) -> None:
    """One shard is enough for a cluster: all of it is on one node, whichever was named."""
    for server in cluster.servers:
        settings = sharded(cluster.url, 1, {})
        port = server.url.rpartition(":")[2].partition("/")[0]
        settings = replace(settings, jobs=replace(settings.jobs, redis_url=cluster.url.replace(cluster.url.rpartition(":")[2], f"{port}/0")))  # fmt: skip
        async with QueueManager(settings) as manager, WorkerPool(WorkerConfig(queues=["one"], sleep=5), manager):
            job_id = await manager.dispatch_to(Note(what=port), "one")
            assert await manager.wait(job_id, 10) == port


async def test_a_shard_moves_to_another_node(cluster: Cluster) -> None:
    """While nobody works on it; who knows where it was finds it."""
    slot = redis.crc.key_slot(b"rf/2")
    home = _node_of("rf/2")
    async with QueueManager(sharded(cluster.url)) as manager:
        store = SyncStore(cluster.url, manager.store.shards)
        assert store.run(store.commands.ping())
        assert await manager.size("two") == 0
        for client in cluster.clients():
            client.flushall()
        for target in ((home + 1) % NODES, home):
            for client in cluster.clients():
                client.flushall()
            cluster.move(slot, target)
            await manager.store.greet()
            job_id = await manager.dispatch_to(Note(what="x"), "two")
            assert await manager.size("two") == 1
            assert store.run(store.commands.envelopes([str(job_id)]))[0] is not None
            await manager.clear("two")
        store.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("which", ["the one that was named", "another"])
async def test_a_node_that_dies_is_replaced_by_its_replica(which: str) -> None:
    """Nobody is started again."""
    seen.clear()
    with small_cluster(replicated=True) as cluster:
        victim = 0 if which == "the one that was named" else _node_of("rf/1")
        assert victim in _used_nodes()
        async with QueueManager(sharded(cluster.url), retry_for=30) as manager, WorkerPool(CONFIG, manager):
            for queue in PLACES:
                assert await manager.dispatch_to(Note(what=queue), queue).result(10) == queue
            cluster.servers[victim].kill()
            for queue in PLACES:
                job_id = await manager.dispatch_to(Note(what="again"), queue)
                assert await manager.wait(job_id, 40) == "again"
            chain = Chain([manager.dispatch_to(Note(what="a"), "one"), manager.dispatch_to(Tells(), "two")])
            await chain.dispatch(manager)
            assert await chain.wait(40) == "completed"
