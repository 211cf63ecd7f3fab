"""A cluster of three servers, as small as one can be."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import redis

from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.embedded_process import free_port
from tests.support.servers import ephemeral_server

NODES = 3
PASSWORD = "of-all-nodes"
SLOTS = 16384


@dataclass
class Cluster:
    """Its nodes."""

    servers: list[EmbeddedServer]

    @property
    def url(self) -> str:
        """Of one of them."""
        return f"redis://:{PASSWORD}@127.0.0.1:{urlsplit(self.servers[0].url).port}/0"

    def clients(self) -> list[redis.Redis]:
        return [redis.Redis.from_url(server.url) for server in self.servers]

    def flush(self) -> None:
        for client in self.clients():
            with client:
                client.flushall()

    def move(self, slot: int, target: int) -> None:
        """An empty slot to another node."""
        clients = self.clients()
        node = clients[target].execute_command("CLUSTER MYID")
        for client in clients:
            client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", node)
            client.close()


@contextmanager
def small_cluster() -> Generator[Cluster]:
    """Three nodes, each with a third of the slots; they end with the block."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                ephemeral_server(
                    port=free_port(0),
                    extra_args=(
                        "--cluster-enabled",
                        "yes",
                        "--cluster-node-timeout",
                        "1000",
                        "--cluster-config-file",
                        f"nodes-{n}.conf",
                    ),
                )
            )
            for n in range(NODES)
        ]
        cluster = Cluster(servers)
        clients = cluster.clients()
        bounds = [SLOTS * n // NODES for n in range(NODES + 1)]
        for n, client in enumerate(clients):
            client.execute_command("ACL", "SETUSER", "default", f">{PASSWORD}")
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        for server in servers[1:]:
            where = urlsplit(server.url)
            clients[0].execute_command("CLUSTER", "MEET", where.hostname, where.port)
        for client in clients:
            _until(partial(_is_up, client))
            client.close()
        yield cluster


def _is_up(client: redis.Redis) -> bool:
    state = bytes(client.execute_command("CLUSTER", "INFO"))
    return b"cluster_state:ok" in state and len(client.execute_command("CLUSTER", "SLOTS")) == NODES


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the cluster does not come up"
        time.sleep(0.02)
