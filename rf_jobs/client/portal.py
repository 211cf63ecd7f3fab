"""One background event loop per process, for code that has none of its own (Django, Flask, scripts).

Started by the first call, ends with the process; what is in flight then is lost with it, and whoever waited has its
error. A forked child starts its own.
"""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, TypeVar

from rf_jobs.words.errors import BackendError

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Knows nothing in a forked child. The kernel's table is shared with the parent: a connection that the child inherits,
    and its garbage collector closes, must not be struck off there, or the parent would never hear from it again."""

    def __init__(self) -> None:
        super().__init__()
        self._pid = os.getpid()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return super().get_map() if os.getpid() == self._pid else {}


class Portal:
    """A loop in a daemon thread."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._loop = asyncio.SelectorEventLoop(_Selector())
        self._managers: dict[Hashable, Any] = {}
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

    def manager(self, key: Hashable, make: Callable[[], T]) -> T:
        """An object that lives on this loop, made at its first use there. Call it from the loop only."""
        if key not in self._managers:
            self._managers[key] = make()
        found: T = self._managers[key]
        return found


_lock = threading.Lock()
_current: Portal | None = None


def portal() -> Portal:
    """This process's portal."""
    global _current  # noqa: PLW0603 (one per process is the point)
    with _lock:
        if _current is None or _current.pid != os.getpid():
            _current = Portal()
        return _current


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 (the parent may have held it)
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
