"""Listening to what scripts announce. An announcement is a hint: it may be lost, and whoever hears it looks up the truth."""

from __future__ import annotations

from typing import Any

import redis.asyncio as aredis

from rf_jobs.store.calls import text


class Channels:
    """Hears of the members of one family that were added. One connection, which the first ``add`` opens and ``aclose`` gives
    back; after an error it is of no more use: make another. ``hear`` may wait in one task while others ``add``."""

    def __init__(self, client: aredis.Redis, prefix: str) -> None:
        self._prefix = prefix
        self._subscription: Any = client.pubsub(ignore_subscribe_messages=True)

    async def add(self, *members: str) -> None:
        """Listen to these too."""
        await self._subscription.subscribe(*(self._prefix + member for member in members))

    async def drop(self, member: str) -> None:
        """Listen to it no longer."""
        await self._subscription.unsubscribe(self._prefix + member)

    async def hear(self, timeout: float) -> tuple[str, str] | None:
        """The next announcement: a member, and what is said of it. None where none came within ``timeout`` seconds."""
        message = await self._subscription.get_message(timeout=timeout)
        if message is None:
            return None
        return text(message["channel"])[len(self._prefix) :], text(message["data"])

    async def aclose(self) -> None:
        """Close the connection."""
        await self._subscription.aclose()
