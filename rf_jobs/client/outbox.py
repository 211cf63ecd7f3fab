"""Outboxes: jobs that a database transaction dispatches. They lie in a table of that database, committed or rolled back
with everything else, until a relay (``worker/relay.py``) has moved them to the server.

Here is what all kinds of outbox share: what a row holds, how a dispatch becomes one and comes back, and what a relay needs
of a database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar, cast, runtime_checkable
from uuid import UUID

import msgspec
from msgspec.structs import replace

from rf_jobs.client.pending import Pending
from rf_jobs.client.queue import Queue, unconnected_manager
from rf_jobs.core.transitions import Dispatching
from rf_jobs.model import codec
from rf_jobs.model.events import EventBus, JobDispatched, JobOutboxed
from rf_jobs.model.job import Job
from rf_jobs.store import options
from rf_jobs.store.shapes import Draft
from rf_jobs.words.errors import SerializationError
from rf_jobs.words.ids import new_id
from rf_jobs.words.states import State
from rf_jobs.words.timing import mono, now_ms

T = TypeVar("T")
NAME = "rf_jobs_outbox"
"""What its table is called unless the application says otherwise."""


# --- rows ---------------------------------------------------------------------------------------------------------------


class OutboxRow(msgspec.Struct, frozen=True, gc=False):
    """A dispatch as it is written to a table. Queue and class are for people; ``draft`` is what counts."""

    id: str
    queue: str
    job_class: str
    draft: bytes


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A row as a relay reads it."""

    seq: int
    draft: bytes
    age_ms: int
    """Since it was written, by the database's clock."""


class _Packed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the bytes of a row are."""

    draft: Draft
    job_class: str
    traceparent: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Packed)


def to_row(item: Dispatching) -> OutboxRow:
    """A prepared dispatch as a row."""
    draft, event = item.draft, item.event
    packed = _Packed(draft, event.job_class, event.traceparent)
    return OutboxRow(draft.id, draft.queue, event.job_class, _encoder.encode(packed))


def from_row(row: Waiting, remember_ms: int) -> Dispatching:
    """A prepared dispatch from its row, whose id the server remembers for so long. A delay and an expiry count from when
    the row was written. Raises ``SerializationError`` where its bytes are not those of a dispatch."""
    try:
        return _read(row, remember_ms)
    except (msgspec.MsgspecError, ValueError) as error:
        raise SerializationError(f"its bytes are not those of a dispatch: {error}") from error


def _read(row: Waiting, remember_ms: int) -> Dispatching:
    packed = _decoder.decode(row.draft)
    job_id, draft = UUID(packed.draft.id), packed.draft
    when = _since(draft.when, row.age_ms)
    draft = replace(draft, when=when, options=options.remembered(draft.options, remember_ms))
    due = when.partition("!")[0]
    delay_ms = 0 if not due else int(due) if due[0] == "+" else max(0, int(due) - now_ms())
    state = State.SCHEDULED if delay_ms else State.READY
    event = JobDispatched(
        draft.id, draft.queue, packed.job_class, state, delay_ms, draft.priority, packed.traceparent, mono()
    )
    return Dispatching(job_id, draft, event)


def _since(when: str, age_ms: int) -> str:
    """``Draft.when`` of a dispatch that was meant so long ago: what counts from now counts from then."""
    due, limited, valid = when.partition("!")
    if due.startswith("+"):
        left = int(due) - age_ms
        due = f"+{left}" if left > 0 else ""
    return f"{due}!{max(0, int(valid) - age_ms)}" if limited else due


# --- writing ------------------------------------------------------------------------------------------------------------


class OutboxWriter:
    """Prepares dispatches for a table, with the settings, the middleware and the bus that ``Queue`` has at that moment."""

    def __init__(self, outbox: str) -> None:
        self._outbox = outbox

    def prepare(self, job: Job | Pending[Any]) -> tuple[UUID, OutboxRow, Callable[[], None]]:
        """The job's id, its row, and what to call once the row is written. Raises ``SerializationError``,
        ``PayloadTooLarge``, ``MissingKey`` or ``InvalidOption``."""
        pending: Pending[Any] = job if isinstance(job, Pending) else Queue.dispatch(cast(Any, job))
        manager = unconnected_manager()
        item = manager.prepare(*pending.take())
        return item.id, to_row(item), partial(self._written, manager.bus, item.event)

    def _written(self, bus: EventBus, event: JobDispatched) -> None:
        bus.emit(JobOutboxed(event.job_id, event.queue, event.job_class, self._outbox))


def prepared(pending: Pending[Any]) -> tuple[UUID, Callable[[], UUID]]:
    """A dispatch that is to be made later: its id, and what makes it. Raises at once what is wrong with the job:
    ``SerializationError``."""
    job, choices = pending.take()
    codec.encode_payload(job, job.__job_class__)
    choices.id = choices.id or new_id()
    return choices.id, pending.sync


# --- reading ------------------------------------------------------------------------------------------------------------


class Haul:
    """What a relay took from a table, oldest first. Rows that it puts ``aside`` stay there, with the reason."""

    def __init__(self, rows: Iterable[Waiting]) -> None:
        self.rows = list(rows)
        self.aside: dict[int, str] = {}
        """Row number to reason."""

    @property
    def delivered(self) -> list[int]:
        """The numbers of the rows that may go."""
        return [row.seq for row in self.rows if row.seq not in self.aside]


@runtime_checkable
class OutboxSource(Protocol):
    """A table that a relay empties."""

    name: str

    def take(self, limit: int) -> AbstractAsyncContextManager[Haul]:
        """Rows that nobody else has taken, in a transaction that ends with the context: then the delivered ones are gone.
        Where the context is left with an exception nothing has changed."""
        ...

    async def measure(self, most: int) -> tuple[int, float]:
        """How many rows wait, counted up to ``most``, and the age of the oldest in seconds."""
        ...

    async def aclose(self) -> None:
        """Let go of what taking needed."""
        ...


class BlockingTable(Protocol):
    """The same for a database that is spoken to without an event loop."""

    name: str

    def take(self, limit: int) -> AbstractContextManager[Haul]: ...
    def measure(self, most: int) -> tuple[int, float]: ...
    def close(self) -> None: ...


class InThread:
    """A blocking table as a source. All calls are made in one thread of its own, which starts with the first and ends with
    ``aclose``: a transaction, and a connection of SQLite or Django, belong to a thread."""

    def __init__(self, table: BlockingTable) -> None:
        self.name = table.name
        self._table = table
        self._thread: Executor | None = None
        self._entered: AbstractContextManager[Haul] | None = None

    @asynccontextmanager
    async def take(self, limit: int) -> AsyncGenerator[Haul, None]:
        haul = await self._call(partial(self._enter, self._table.take(limit)))
        try:
            yield haul
        except BaseException as error:
            await self._call(partial(self._leave, error))
            raise
        await self._call(partial(self._leave, None))

    def _enter(self, context: AbstractContextManager[Haul]) -> Haul:
        haul = context.__enter__()
        self._entered = context
        return haul

    def _leave(self, error: BaseException | None) -> None:
        context, self._entered = self._entered, None
        if context is not None:
            context.__exit__(type(error) if error is not None else None, error, None)

    async def measure(self, most: int) -> tuple[int, float]:
        return await self._call(partial(self._table.measure, most))

    async def aclose(self) -> None:
        if self._thread is not None:
            await self._call(self._close)
            self._thread.shutdown(wait=False)
            self._thread = None

    def _close(self) -> None:
        try:
            self._leave(asyncio.CancelledError())  # where it was cancelled while it entered
        except asyncio.CancelledError:
            pass
        finally:
            self._table.close()

    async def _call(self, function: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="rf-jobs-outbox")
        # The thread goes on when this is cancelled: a transaction must not be left half open, nor half closed.
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)
