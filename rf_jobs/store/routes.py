"""Through which client each shard is reached. All are on one server, unless that is a node of a cluster: then the node that
was asked says who has the shard, and that is remembered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import redis.exceptions

Client = TypeVar("Client")
Address = tuple[str, int]


class Routes(Generic[Client]):
    """Opens a client for each node that it hears of, by ``connect``, which None asks for the server that was configured. All are
    kept until their owner closes them."""

    def __init__(self, shards: int, connect: Callable[[Address | None], Client]) -> None:
        self._connect = connect
        self._clients: dict[Address | None, Client] = {None: connect(None)}
        self._at: list[Address | None] = [None] * shards

    @property
    def first(self) -> Client:
        """Of the server that was configured."""
        return self._clients[None]

    @property
    def all(self) -> list[Client]:
        """Every client that was opened."""
        return list(self._clients.values())

    @property
    def are_several(self) -> bool:
        """Whether shards are on nodes of a cluster."""
        return any(address is not None for address in self._at)

    def of(self, shard: int) -> Client:
        """The client for a shard."""
        return self._clients[self._at[shard]]

    def moved(self, shard: int, error: redis.exceptions.MovedError) -> None:
        """The node that was asked says that another has the shard."""
        address = (error.host, error.port)
        if address not in self._clients:
            self._clients[address] = self._connect(address)
        self._at[shard] = address

    def lost(self, client: Client) -> None:
        """The node behind this client did not answer: another one may know by now who has what it had."""
        known = list(self._clients)
        gone = next(address for address in known if self._clients[address] is client)
        other = known[(known.index(gone) + 1) % len(known)]
        self._at = [other if address == gone else address for address in self._at]
