"""``Relay``: moves jobs from an outbox, a table of a database, to the server."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Self

from rf_jobs.client.dispatching import chunks
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.outbox import Haul, OutboxSource, from_row
from rf_jobs.client.placing import Refused, waves
from rf_jobs.core import transitions
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model.events import OutboxMeasured, OutboxRelayed
from rf_jobs.store import relay_calls
from rf_jobs.store.failures import blames_the_call
from rf_jobs.words.errors import BackendError, InvalidOption, RfJobsError, SerializationError, WorkerError
from rf_jobs.words.timing import Duration, mono, seconds
from rf_jobs.worker.patience import Failures

log = logging.getLogger("rf_jobs.outbox")
BATCH = 500
POLL_SECONDS = 0.5
MEASURE_SECONDS = 10.0
MOST_COUNTED = 100_000
PUSH_SECONDS = 1.0
"""How long a push is tried inside the transaction that took the rows: they are locked meanwhile."""
REMEMBERED_MS = 7 * 86_400_000
"""How long the server remembers that it has a row, where its relay died before the row was gone."""
HELD_SECONDS = 20.0
"""Rows that were taken longer ago are not pushed: the database may have given them to another relay meanwhile."""
LINGER_SECONDS = 60.0
"""For how long the server goes on knowing rows that are gone: a relay that was held up may yet push them."""
DISK_SECONDS = 2.5
GIVE_UP_AFTER = 3
"""A row that fails so often, alone and at a server that answers, is put aside."""


class Relay:
    """Takes rows in their order, pushes them, and commits their removal: ``async with Relay(manager, source): ...``, or
    ``await relay.run()`` until ``stop``.

    Several may run on one table, in any processes: each takes rows that no other has. The order of rows is kept by one
    relay, not among several. Whatever dies, and whenever: a row is there until it was pushed, and one that is pushed
    again is known to the server, by its id, and is not doubled. A row that cannot be pushed is put aside in the table with
    the reason, and the others go on.

    ``durable``: rows are removed once the server has the jobs on its disk, not only in its memory. That takes as long as
    its ``appendfsync`` says, up to a second for each batch, and needs Redis 7.2 or Valkey, with AOF.
    """

    def __init__(
        self, manager: QueueManager, source: OutboxSource, *, batch: int = BATCH, poll: Duration = POLL_SECONDS,
        durable: bool = False,
    ) -> None:  # fmt: skip
        if not isinstance(source, OutboxSource):
            raise InvalidOption(f"a relay got {source!r}; give the source of an outbox, such as outbox.source(engine)")
        if not 1 <= batch <= 10_000:
            raise InvalidOption(f"batch is {batch!r}; give 1 to 10000 rows")
        self._poll = seconds(poll, "poll")
        if self._poll <= 0:
            raise InvalidOption(f"poll is {poll!r}; it must be more than 0 seconds")
        self._manager = manager
        self._source = source
        self._batch = self._limit = batch
        self._durable = durable
        self._failures = Failures()
        self._taken: list[int] = []
        """The rows of the last attempt."""
        self._alone = 0
        """How often that was one row, which failed at a server that answers."""
        self._hopeless: dict[int, str] = {}
        """Rows that cannot be pushed, with the reason."""
        self._blamed = False
        """Whether the last failure may lie in a row."""
        self._gone: deque[tuple[float, list[str]]] = deque()
        """When rows were removed, and their ids: the server still knows them."""
        self._measured = 0.0
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise WorkerError("this relay was started before; make a new one")
        self._task = asyncio.create_task(self.run(), name="rf-jobs-outbox", context=contextvars.Context())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.stop()
        if self._task is not None:
            await self._task

    def stop(self) -> None:
        """Let ``run`` end after the rows that it has taken."""
        self._stopping.set()

    async def run(self) -> None:
        """Move rows until ``stop``. Waits out whatever the database or the server do."""
        log.info("the relay of outbox %s starts", self._source.name)
        try:
            while not self._stopping.is_set():
                try:
                    moved = await self._whole_step()
                    await self._measure()
                except Exception as error:  # the database's errors are of its driver's kinds
                    await self._failed(error)
                else:
                    self._failures.end()
                    if moved < self._limit:
                        await self._rest(self._poll)
                    self._limit = min(self._batch, self._limit * 2)
        finally:
            await self._source.aclose()
            log.info("the relay of outbox %s has stopped", self._source.name)

    async def _whole_step(self) -> int:
        """A cancellation waits for it: drivers leave a transaction open when they are cancelled in the middle of it."""
        step = asyncio.create_task(self.step(), name="rf-jobs-outbox-step")
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            await asyncio.wait([step])
            raise

    async def _rest(self, how_long: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), how_long)

    # --- moving rows ------------------------------------------------------------------------------------------------

    async def step(self) -> int:
        """Move up to ``batch`` rows; answers how many there were. Raises ``BackendError``, or what the database raises:
        then the rows are where they were."""
        began, self._blamed = mono(), False
        async with self._source.take(self._limit) as haul:
            self._took([row.seq for row in haul.rows])
            items = self._open(haul)
            await self._push(haul, items, began + HELD_SECONDS)
            if self._durable and items:
                await self._on_disk()
        if haul.rows:
            self._gone.append((mono(), [item.draft.id for item in items.values()]))
            self._tell(haul)
        await self._forget()
        return len(haul.rows)

    def _took(self, rows: list[int]) -> None:
        if rows != self._taken:
            self._taken, self._alone = rows, 0

    def _open(self, haul: Haul) -> dict[int, Dispatching]:
        items: dict[int, Dispatching] = {}
        for row in haul.rows:
            if row.seq in self._hopeless:
                haul.aside[row.seq] = self._hopeless[row.seq]
                continue
            try:
                items[row.seq] = from_row(row, REMEMBERED_MS)
            except SerializationError as error:
                haul.aside[row.seq] = str(error)
        return items

    async def _push(self, haul: Haul, items: dict[int, Dispatching], until: float) -> None:
        """What the server does not take, and would have told whoever dispatched it, is put aside."""
        manager = self._manager
        large = list(items.values())
        if manager.offload.above is not None:
            large = await manager.offload.store_large(large)
        rows = list(items)
        placed, refused = await self._placed(large)
        haul.aside.update((rows[at], _refused(*said)) for at, said in refused.items())
        for wave in waves(placed, refused):
            left = iter(wave)
            for chunk in chunks([placed[at] for at in wave]):
                await self._push_some(haul, [rows[at] for at in islice(left, len(chunk))], chunk, until)

    async def _push_some(self, haul: Haul, rows: list[int], items: Sequence[Dispatching], until: float) -> None:
        if mono() > until:
            raise WorkerError(f"rows were taken more than {HELD_SECONDS:g} s ago and not pushed yet; taking them again")
        manager = self._manager
        try:
            step = transitions.enqueue(manager.store.commands, items)
            said = await manager.lifecycle.apply(step, retry_for=PUSH_SECONDS)
        except RfJobsError as error:
            self._blamed = blames_the_call(error)
            raise
        for at, seq in enumerate(rows):
            code, detail = said.get(at, ("", ""))
            if code in transitions.REFUSED_DISPATCH and code != "dropped":
                haul.aside[seq] = _refused(code, detail)

    async def _placed(self, items: list[Dispatching]) -> tuple[list[Dispatching], Refused]:
        placer = self._manager.placer
        if not placer.is_needed:
            return items, {}
        try:
            return await placer.place(items)
        except RfJobsError as error:
            self._blamed = isinstance(error, InvalidOption) or blames_the_call(error)
            raise

    async def _on_disk(self) -> None:
        store = self._manager.store
        wait = relay_calls.on_disk(store.commands, round(DISK_SECONDS * 1000))
        if not (await store.run_many(wait, retry_for=0.0))[-1]:
            raise BackendError(f"the server did not have the jobs on its disk within {DISK_SECONDS:g} s; see `durable`")

    async def _forget(self) -> None:
        """Rows that nobody can push any more."""
        ids: list[str] = []
        while self._gone and mono() - self._gone[0][0] >= LINGER_SECONDS:
            ids += self._gone.popleft()[1]
        if not ids:
            return
        store = self._manager.store
        try:
            await store.run(relay_calls.forget(store.commands, ids))
        except RfJobsError as error:
            log.info("the server remembers %d rows for longer than it needs to: %s", len(ids), error)

    def _tell(self, haul: Haul) -> None:
        for seq, why in haul.aside.items():
            self._hopeless.pop(seq, None)  # its transaction has committed
            log.error("row %d of outbox %s is put aside: %s", seq, self._source.name, why)
        lag = max(row.age_ms for row in haul.rows) / 1000
        event = OutboxRelayed(self._source.name, len(haul.delivered), lag, len(haul.aside))
        self._manager.bus.emit(event)

    # --- what goes wrong, and what waits ----------------------------------------------------------------------------

    async def _failed(self, error: Exception) -> None:
        """Ever fewer rows at once, with pauses: one that cannot be sent must not hold up the others for ever."""
        self._failures.add(f"outbox {self._source.name} waits: {type(error).__name__}: {error}")
        self._manager.bus.emit(OutboxRelayed(self._source.name, 0, 0.0, error=type(error).__name__))
        if self._blamed and await self._answers():
            self._limit = max(1, len(self._taken) // 2)
            if len(self._taken) == 1:
                self._alone += 1
                if self._alone >= GIVE_UP_AFTER:
                    self._hopeless[self._taken[0]] = str(error)[:1000]
        pause = asyncio.create_task(self._failures.pause())
        stop = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([pause, stop], return_when=asyncio.FIRST_COMPLETED)
        for task in (pause, stop):
            task.cancel()

    async def _answers(self) -> bool:
        store = self._manager.store
        try:
            return await store.run(store.commands.ping(), retry_for=0.0)
        except RfJobsError:
            return False

    async def _measure(self) -> None:
        now = mono()
        if self._measured and now - self._measured < MEASURE_SECONDS:
            return
        self._measured = now
        backlog, age = await self._source.measure(MOST_COUNTED)
        self._manager.bus.emit(OutboxMeasured(self._source.name, backlog, age))
        objective = self._manager.settings.jobs.queue_age_objective_seconds
        if age > objective:
            log.warning(
                "the oldest of %d rows in outbox %s has waited %.0f s, the objective is %.0f s",
                backlog, self._source.name, age, objective,
            )  # fmt: skip


def _refused(code: str, detail: str) -> str:
    return f"the server refused it: {transitions.REFUSED_DISPATCH[code]} ({detail})"
