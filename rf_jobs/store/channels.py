"""Listening to what scripts announce. An announcement is a hint: it may be lost, and whoever hears it looks up the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio as aredis

from rf_jobs.store.calls import text


class Channels:
    """Hears of the members of one family that were added. One connection, which the first ``add`` opens and ``aclose`` gives
    back; after an error it is of no more use: make another. ``hear`` may wait in one task while others ``add``."""

    def __init__(self, client: aredis.Redis, prefixes: Sequence[str]) -> None:
        """``prefixes``: of the family's channels in each shard."""
        self._prefixes = tuple(prefixes)
        self._subscription: Any = client.pubsub(ignore_subscribe_messages=True)

    async def add(self, *members: str) -> None:
        """Listen to these too."""
        await self._subscription.subscribe(*(prefix + member for prefix in self._prefixes for member in members))

    async def drop(self, member: str) -> None:
        """Listen to it no longer."""
        await self._subscription.unsubscribe(*(prefix + member for prefix in self._prefixes))

    async def hear(self, timeout: float) -> tuple[str, str] | None:
        """The next announcement: a member, and what is said of it. None where none came within ``timeout`` seconds."""
        message = await self._subscription.get_message(timeout=timeout)
        if message is None:
            return None
        channel = text(message["channel"])
        prefix = next(prefix for prefix in self._prefixes if channel.startswith(prefix))
        return channel[len(prefix) :], text(message["data"])

    async def aclose(self) -> None:
        """Close the connection."""
        await self._subscription.aclose()
