"""Waiting for what another process or the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], what: str, timeout: float = 20.0) -> T:
    """Look again every 20 ms until what is seen is true, and answer with it; fails with ``what``."""
    try:
        async with asyncio.timeout(timeout):
            while not (seen := await look()):  # noqa: ASYNC110 (it is in another process; there is no event to wait for)
                await asyncio.sleep(0.02)
            return seen
    except TimeoutError:
        raise AssertionError(f"not within {timeout:g} s: {what}") from None
