"""Every example runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from rf_jobs import QueueManager

EXAMPLES = sorted(
    p.stem for p in (Path(__file__).parents[2] / "examples").glob("*.py") if p.stem not in ("__init__", "here")
)


@pytest.mark.parametrize("name", EXAMPLES)
async def test_example(name: str, redis_url: str) -> None:
    async with QueueManager(redis_url) as manager:
        await importlib.import_module(f"examples.{name}").main(manager)
