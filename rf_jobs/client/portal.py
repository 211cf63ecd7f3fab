"""One background event loop per process, for code that has none of its own (Django, Flask, scripts).

Started by the first call, ends with the process; what is in flight then is lost with it, and whoever waited has its
error. A forked child starts its own.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Generic, Protocol, TypeVar, cast

from rf_jobs.words.errors import BackendError

T = TypeVar("T")


class Lodger(Protocol):
    """What may live on the loop."""

    async def aclose(self) -> None: ...


L = TypeVar("L", bound=Lodger)


class _Selector(selectors.DefaultSelector):
    """Knows nothing in a forked child. The kernel's table is shared with the parent: a connection that the child inherits,
    and its garbage collector closes, must not be struck off there, or the parent would never hear from it again."""

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return super().get_map() if os.getpid() == self._pid else {}


class Portal:
    """A loop in a daemon thread, and what lives on it."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.SelectorEventLoop(_Selector())
        self._lodgers: dict[object, Lodger] = {}
        threading.Thread(target=self._loop.run_forever, name="rf-jobs-portal", daemon=True).start()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and wait for it; raises ``BackendError`` when ``timeout`` seconds pass first."""
        future = asyncio.run_coroutine_threadsafe(make(), self._loop)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise BackendError(f"no answer within {timeout} s; it may have happened all the same") from None

    def lodger(self, key: object, make: Callable[[], L]) -> L:
        """What lives here under ``key``, made at its first use. Call it from the loop only."""
        if key not in self._lodgers:
            self._lodgers[key] = make()
        return cast(L, self._lodgers[key])

    def evict(self, key: object) -> Future[None]:
        """Close what lives here under ``key``, if anything does; does not wait for it."""
        return asyncio.run_coroutine_threadsafe(self._evict(key), self._loop)

    async def _evict(self, key: object) -> None:
        found = self._lodgers.pop(key, None)
        if found is not None:
            await found.aclose()


_lock = threading.Lock()
_current: Portal | None = None


def portal() -> Portal:
    """This process's portal."""
    global _current  # noqa: PLW0603 (one per process is the point)
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Portal()
        return _current


def _evict(key: object) -> Future[None]:
    # Without the lock: the garbage collector calls this, and may do so in a thread that holds it.
    if _current is not None and _current.pid == os.getpid():
        return _current.evict(key)
    nothing: Future[None] = Future()
    nothing.set_result(None)
    return nothing


class Counterpart(Generic[L]):
    """What lives on the background loop for an ``owner`` that does not: made by the first call (in a forked child, by the
    child's first), closed by ``close``, at the latest when the owner is garbage. ``make`` must not hold the owner, or that
    never comes."""

    def __init__(self, owner: object, make: Callable[[], L]) -> None:
        self._key = object()
        self._make = make
        self.closed = False
        weakref.finalize(owner, _evict, self._key).atexit = False  # the loop ends with the process anyway

    def call(self, use: Callable[[L], Coroutine[Any, Any, T]], timeout: float | None = None) -> T:
        """Use it on the loop and wait; raises ``BackendError`` once closed, and when ``timeout`` seconds pass first."""
        here = portal()

        async def on_loop() -> T:
            self.check()
            return await use(here.lodger(self._key, self._make))

        return here.call(on_loop, timeout)

    def check(self) -> None:
        """Raise ``BackendError`` where it was closed."""
        if self.closed:
            raise BackendError("this manager was closed; make a new one")

    def close(self) -> Future[None]:
        """Close it; the future is done when it is."""
        self.closed = True
        return _evict(self._key)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 (the parent may have held it)
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
