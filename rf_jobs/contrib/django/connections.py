"""Django's database connections around a job: as around a request, stale and broken ones are closed before and after it, in
the thread that uses them."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import Any

from asgiref.sync import sync_to_async
from django.db import close_old_connections

_DONE = "__rf_jobs_minded__"


def mind_connections(job_class: type[Any]) -> None:
    """Let the handler of a job class mind them. Once is enough."""
    handle = inspect.getattr_static(job_class, "handle")
    if getattr(handle, _DONE, False) or not inspect.isfunction(handle):
        return

    @wraps(handle)
    def minded(*args: Any) -> Any:
        close_old_connections()
        try:
            return handle(*args)
        finally:
            close_old_connections()

    @wraps(handle)
    async def minded_async(*args: Any) -> Any:
        # Django's async queries run in the one thread that sync_to_async shares among them.
        await sync_to_async(close_old_connections)()
        try:
            return await handle(*args)
        finally:
            await sync_to_async(close_old_connections)()

    wrapper = minded_async if inspect.iscoroutinefunction(handle) else minded
    setattr(wrapper, _DONE, True)
    job_class.handle = wrapper
