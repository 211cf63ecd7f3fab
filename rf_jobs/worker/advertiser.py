"""What this worker can run, told to the store: once, when it changes, and now and then so that it is not forgotten."""

from __future__ import annotations

from rf_jobs.model import catalog
from rf_jobs.model.jobclass import Registry
from rf_jobs.store.redis import AsyncStore
from rf_jobs.words.timing import mono

KEPT_SECONDS = 3600.0
AGAIN_SECONDS = 600.0
"""A worker that the server forgot, since it was cut off from it, is complete again after this time at the latest."""


class Advertiser:
    """Tells it when ``tell`` is called and there is something to tell."""

    def __init__(self, store: AsyncStore, worker: str, registry: Registry) -> None:
        self._store = store
        self._worker = worker
        self._registry = registry
        self._changes = -1
        self._told = 0.0

    def forget(self) -> None:
        """The server has lost it: tell it again."""
        self._changes = -1

    async def tell(self) -> None:
        """Say it, unless the server has it already. Raises ``BackendError``."""
        changes = self._registry.changes
        if changes == self._changes and mono() - self._told < AGAIN_SECONDS:
            return
        digest, data = catalog.encode(catalog.catalog_of(self._registry))
        await self._store.run(self._store.commands.advertise(self._worker, digest, data, KEPT_SECONDS))
        self._changes, self._told = changes, mono()
