"""``manager.limits``: what bounds jobs in the whole fleet, and can be changed while they run."""

from __future__ import annotations

from dataclasses import dataclass

from rf_jobs.store import limit_calls
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.limits import Rate, at_least_one, limit_name

_OVERRIDES = ("C", "R", "P", "A")


@dataclass(frozen=True)
class LimitInfo:
    """One limit."""

    name: str
    concurrency: int | None
    """How many may run at once (for each key)."""
    rate: int | None
    """How many may start within ``per`` seconds (for each key)."""
    per: float | None
    algorithm: str
    overridden: bool
    """Whether an operator has changed what the code says."""
    running: int
    """How many run under it; of a limit without keys."""
    held: int
    """How many it holds back; of a limit without keys."""


class Limits:
    """A limit has a name. A class's own are ``<class>`` (concurrency) and ``<class>:rate``; others are shared by the classes that
    name them: ``class Ask(Job, limits=("model-api",))``."""

    def __init__(self, store: AsyncStore) -> None:
        self._store = store

    async def set(self, name: str, *, concurrency: int | None = None, rate: Rate | None = None) -> None:
        """Define a limit, or change it, for the whole fleet and at once; it counts before what the code says, until ``reset``."""
        if concurrency is None and rate is None:
            raise InvalidOption(f"limit {name!r}: give concurrency, rate, or both; to lift one, see reset")
        fields = {} if concurrency is None else {"C": str(at_least_one(concurrency, "concurrency"))}
        if rate is not None:
            if not isinstance(rate, Rate):
                raise InvalidOption(f"limit {name!r}: rate is {rate!r}; give a Rate(...)")
            if rate.key is not None:
                raise InvalidOption(f"limit {name!r}: the rate has the key {rate.key!r}; a key is a class's matter")
            fields |= {"R": str(rate.limit), "P": str(rate.per_ms), "A": rate.algorithm}
        await self._apply(name, fields, [field for field in _OVERRIDES if field not in fields])

    async def reset(self, name: str) -> None:
        """Back to what the code says: no limit, where it says nothing."""
        await self._apply(name, {}, _OVERRIDES)

    async def _apply(self, name: str, fields: dict[str, str], drop: list[str] | tuple[str, ...]) -> None:
        await self._store.run(limit_calls.define(self._store.commands, limit_name(name), fields, drop))

    async def get(self, name: str) -> LimitInfo:
        """One limit; with neither concurrency nor rate where it is not defined."""
        store = self._store
        calls = limit_calls
        fields, running, held = await store.run_many(
            [
                calls.definition(store.commands, limit_name(name)),
                calls.running(store.commands, name),
                calls.held(store.commands, name),
            ]
        )
        concurrency, rate, per = (fields.get(f.upper(), fields.get(f)) for f in ("c", "r", "p"))
        return LimitInfo(
            name,
            int(concurrency) if concurrency else None,
            int(rate) if rate else None,
            int(per) / 1000 if per else None,
            fields.get("A", fields.get("a", "sliding")) if rate else "",
            any(field in fields for field in _OVERRIDES),
            running,
            held,
        )

    async def list(self) -> list[LimitInfo]:
        """All limits, by name."""
        store = self._store
        return [await self.get(name) for name in await store.run(limit_calls.names(store.commands))]
