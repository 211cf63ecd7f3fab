"""How connections to the server are made, and what is changed in redis-py's."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import redis.exceptions


def client_options(url: str, timeout: float) -> dict[str, Any]:
    """For a client of either kind; ``timeout`` is of a read and of a write, in seconds."""
    tcp = {} if url.startswith("unix:") else {"socket_keepalive": True, "socket_connect_timeout": min(timeout, 5.0)}
    return {
        **tcp,
        "socket_timeout": timeout,
        "health_check_interval": 0,
        "decode_responses": False,
        "protocol": 2,
    }


def packing(kind: type[Any]) -> type[Any]:
    """A connection class whose script calls, which have thousands of arguments, are packed by hiredis: redis-py's async
    connections do it in Python, at a microsecond or two per argument."""

    class Packing(kind):  # type: ignore[misc]
        socket_timeout: float | None

        def pack_command(self, *args: Any) -> list[bytes]:
            if args[0] == "EVALSHA":
                return [hiredis.pack_command(args)]
            packed: list[bytes] = super().pack_command(*args)
            return packed

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            # With a timeout redis-py writes under asyncio.wait_for, which makes a task of each write and, up to Python
            # 3.11, may swallow a cancellation: whoever was told to stop would then wait for ever.
            if not self.is_connected:
                await self.connect_check_health(check_health=False)
            limit, self.socket_timeout = self.socket_timeout, None
            try:
                async with asyncio.timeout(limit):
                    await super().send_packed_command(command, check_health)
            except TimeoutError as error:
                raise redis.exceptions.TimeoutError("timeout while writing to the socket") from error
            finally:
                self.socket_timeout = limit

    return Packing
