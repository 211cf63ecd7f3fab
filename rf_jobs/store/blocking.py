"""Blocking on the wake lists of queues, on connections of its own, whose timeout lies above theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import redis.asyncio as aredis
import redis.exceptions

from rf_jobs.store.calls import text
from rf_jobs.store.keys import Shards
from rf_jobs.store.routes import Address, Routes

SOCKET_TIMEOUT = 120.0


class Blocking:
    """``wait`` for one waiter at a time; ``aclose`` closes the connections, which the first wait opens."""

    def __init__(
        self, shards: Shards, connect: Callable[[Address | None, float], aredis.Redis], routes: Routes[aredis.Redis]
    ) -> None:
        self._shards = shards
        self._connect = connect
        self._known = routes
        self._routes: Routes[aredis.Redis] | None = None
        self._apart = False
        """Whether each shard's keys have to be waited for by themselves."""

    async def wait(self, queues: Sequence[str], timeout: float) -> str | None:
        """Until one of the queues has a token, at most ``timeout`` seconds; answers which."""
        if self._routes is None:
            self._routes = Routes(len(self._shards), lambda address: self._connect(address, SOCKET_TIMEOUT))
        if not self._apart and not self._known.are_several:
            try:
                return await self._pop(self._routes, 0, queues, timeout)
            except redis.exceptions.ResponseError as error:
                if "CROSSSLOT" not in str(error):
                    raise
                self._apart = True  # a cluster all the same, with all shards on one of its nodes
        # In a cluster one command can't wait for keys of two slots. A token that two waits take at once is lost, which costs a poll.
        routes = self._routes
        parts = self._shards.split(queues).items()
        waits = [asyncio.ensure_future(self._pop(routes, number, some, timeout)) for number, some in parts]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return next((queue for each in done if (queue := each.result()) is not None), None)
        finally:
            for each in waits:
                each.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _pop(self, routes: Routes[aredis.Redis], shard: int, queues: Sequence[str], timeout: float) -> str | None:
        keys = [self._shards.keys[self._shards.of(queue)].of("wake", queue) for queue in queues]
        while True:
            client = routes.of(shard)
            try:
                popped = await client.execute_command("BLPOP", *keys, f"{timeout:.3f}")
            except redis.exceptions.MovedError as error:
                routes.moved(shard, error)
            except redis.exceptions.ConnectionError:
                if routes.are_several:
                    routes.lost(client)
                raise
            else:
                return None if popped is None else queues[keys.index(text(popped[0]))]

    async def aclose(self) -> None:
        """Close the connections."""
        for client in self._routes.all if self._routes is not None else ():
            await client.aclose()
