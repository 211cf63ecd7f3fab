"""The one seam where code may wrap a dispatch or a run. Tracing uses it, and nothing that a user couldn't."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from rf_jobs.model.context import JobContext
from rf_jobs.model.envelope import Envelope, Headers
from rf_jobs.words.options import several

Handle = Callable[[], Awaitable[Any]]


class Middleware:
    """Override what you need."""

    def on_dispatch(self, envelope: Envelope, headers: Headers) -> None:
        """Called while a job is prepared for the store, on the event loop that dispatches it: the background thread's for
        ``.sync()`` and ``rf_jobs.sync``. Do not block there.

        May set members of ``headers``: ``tp`` and ``ts`` (trace context), ``bg`` (baggage, a dict of strings), ``cv`` (the
        conversation id). Leave ``envelope`` as it is. What it raises goes to the caller, and nothing is sent; of a
        ``dispatch_many`` none of the jobs.
        """

    async def around(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        """Called around each run; must call ``handle`` once and answer with what it returned, or raise."""
        return await handle()

    async def around_batch(self, count: int, send: Handle) -> Any:
        """Called around a ``dispatch_many``, before its jobs are prepared; must call ``send`` once."""
        return await send()


class MiddlewareStack:
    """Middlewares, the first outermost."""

    def __init__(self, layers: Sequence[Middleware] = ()) -> None:
        self._layers: tuple[Middleware, ...] = ()
        self._running: tuple[Middleware, ...] = ()
        self._dispatching: tuple[Middleware, ...] = ()
        self._batching: tuple[Middleware, ...] = ()
        for layer in several(layers, "middleware"):
            self.add(layer)

    @property
    def is_empty(self) -> bool:
        """Whether there is none."""
        return not self._layers

    def add(self, layer: Middleware) -> None:
        """Put ``layer`` innermost. A layer that does not override a method costs nothing there."""
        kind = type(layer)
        self._layers = (*self._layers, layer)
        if kind.around is not Middleware.around:
            self._running = (layer, *self._running)
        if kind.on_dispatch is not Middleware.on_dispatch:
            self._dispatching = (*self._dispatching, layer)
        if kind.around_batch is not Middleware.around_batch:
            self._batching = (layer, *self._batching)

    @property
    def wraps_runs(self) -> bool:
        """Whether ``run`` would do anything but call the handler."""
        return bool(self._running)

    def prepare(self, envelope: Envelope) -> None:
        """Let every layer see a job that is about to be dispatched."""
        if self._dispatching:
            headers = envelope.hdr if envelope.hdr is not None else Headers()
            for layer in self._dispatching:
                layer.on_dispatch(envelope, headers)
            if headers.tp or headers.cv or headers.ts or headers.bg:
                envelope.hdr = headers

    async def run(self, ctx: JobContext, job: Any, handle: Handle) -> Any:
        """Run a handler inside all layers."""
        for layer in self._running:
            handle = _bound(layer, ctx, job, handle)
        return await handle()

    async def batch(self, count: int, send: Handle) -> Any:
        """Send a batch inside all layers."""
        for layer in self._batching:
            send = _bound_batch(layer, count, send)
        return await send()


def _bound(layer: Middleware, ctx: JobContext, job: Any, handle: Handle) -> Handle:
    return lambda: layer.around(ctx, job, handle)


def _bound_batch(layer: Middleware, count: int, send: Handle) -> Handle:
    return lambda: layer.around_batch(count, send)
