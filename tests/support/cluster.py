"""A cluster of three servers, as small as one can be; or with a replica for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
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
    """Its nodes: those that have slots at first, and the replicas of these, if there are any."""

    servers: list[EmbeddedServer]
    replicas: list[EmbeddedServer]

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
def small_cluster(*, replicated: bool = False) -> Generator[Cluster]:
    """Three nodes, each with a third of the slots; they end with the block."""
    with ExitStack() as stack:
        servers = [stack.enter_context(_node(number)) for number in range(NODES)]
        replicas = [stack.enter_context(_node(NODES + number)) for number in range(NODES if replicated else 0)]
        cluster = Cluster(servers, replicas)
        clients = [redis.Redis.from_url(server.url) for server in (*servers, *replicas)]
        for n, client in enumerate(clients):
            client.execute_command("ACL", "SETUSER", "default", f">{PASSWORD}")
            client.execute_command("CONFIG", "SET", "masterauth", PASSWORD)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", n + 1)
        bounds = [SLOTS * n // NODES for n in range(NODES + 1)]
        for n in range(NODES):
            clients[n].execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[n], bounds[n + 1] - 1)
        for server in (*servers, *replicas)[1:]:
            where = urlsplit(server.url)
            clients[0].execute_command("CLUSTER", "MEET", where.hostname, where.port)
        for client in clients:
            _until(partial(_is_up, client, len(clients)))
        for n, client in enumerate(clients[NODES:]):
            client.execute_command("CLUSTER", "REPLICATE", clients[n].execute_command("CLUSTER", "MYID"))
        for client in clients[NODES:]:
            _until(partial(_follows, client))
        for client in clients:
            client.close()
        yield cluster


def _node(number: int) -> EmbeddedServer:
    options = {
        "enabled": "yes",
        "node-timeout": "1000",
        "config-file": f"nodes-{number}.conf",
        "replica-validity-factor": "0",
    }
    arguments = [argument for name, value in options.items() for argument in (f"--cluster-{name}", value)]
    return ephemeral_server(port=free_port(0), extra_args=[*arguments, "--repl-diskless-sync-delay", "0"])


def _is_up(client: redis.Redis, nodes: int) -> bool:
    state = bytes(_told(client, "INFO"))
    return (
        b"cluster_state:ok" in state
        and f"cluster_known_nodes:{nodes}".encode() in state
        and len(_told(client, "SLOTS")) == NODES
    )


def _told(client: redis.Redis, what: str) -> Any:
    return client.execute_command("CLUSTER", what)


def _follows(client: redis.Redis) -> bool:
    found = client.info("replication")
    return bool(found["role"] == "slave" and found["master_link_status"] == "up")


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the cluster does not come up"
        time.sleep(0.02)
