"""The schedules of a scheduler's code, kept in the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rf_jobs.client.schedules import put_of
from rf_jobs.core import schedules as changes
from rf_jobs.core.lifecycle import Lifecycle
from rf_jobs.model.schedule import Definition
from rf_jobs.store.schedule_calls import ScheduleCalls
from rf_jobs.words.timing import mono
from rf_jobs.worker.patience import PATIENCE_SECONDS

TOUCH_SECONDS = 60.0
"""How often a scheduler says which schedules its code has. What none has said for three minutes is orphaned."""
PAGE = 100


class Declaration:
    """``put`` at the start, ``touch_now_and_then`` from then on. Ends with its scheduler; its schedules stay."""

    def __init__(
        self, lifecycle: Lifecycle, calls: ScheduleCalls, scheduler: str, definitions: Mapping[str, Definition]
    ) -> None:
        self._lifecycle = lifecycle
        self._calls = calls
        self._scheduler = scheduler
        self._definitions = definitions
        self._revisions: dict[str, str] = {}
        self._touched = 0.0

    def __len__(self) -> int:
        return len(self._definitions)

    async def put(self) -> None:
        """Put all of them into the store. Raises ``BackendError``."""
        await self._put(list(self._definitions))
        self._touched = mono()

    async def _put(self, names: Sequence[str]) -> None:
        store = self._lifecycle.store
        for at in range(0, len(names), PAGE):
            now = await store.run(store.commands.time())
            page = [put_of(name, self._definitions[name], now) for name in names[at : at + PAGE]]
            replies = await self._lifecycle.apply(changes.put(self._calls, "code", self._scheduler, page))
            await changes.move_away(store, self._calls, "code", page, replies)
            self._revisions.update((one.name, one.revision) for one in page)

    async def touch_now_and_then(self) -> None:
        """Say that the code still has them, if that was not said a moment ago; put those again that are not there as the code
        has them, unless another scheduler that lives has them otherwise. Raises ``BackendError``."""
        if mono() - self._touched < TOUCH_SECONDS:
            return
        known = list(self._revisions.items())
        for at in range(0, len(known), PAGE):
            page = known[at : at + PAGE]
            wrong = await self._lifecycle.store.run(
                self._calls.touch(self._scheduler, page), retry_for=PATIENCE_SECONDS
            )
            if wrong:
                await self._put([page[index][0] for index in wrong])
        self._touched = mono()
