"""What a batch or chain calls when it is done: a job, or a module-level coroutine function.

A function crosses processes by its name and is looked up only among modules that the worker has imported: a payload can
choose none that the worker's own code did not load.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from types import FunctionType
from typing import Any
from uuid import UUID

from rf_jobs.client.pending import Pending
from rf_jobs.model.context import JobContext
from rf_jobs.model.job import Job
from rf_jobs.words.backoff import Exponential
from rf_jobs.words.errors import InvalidOption, UnknownJobClass

Function = Callable[..., Awaitable[Any]]
Callback = Job | Pending[Any] | Function


class BatchCallback(Job, name="rf_jobs:batch_callback", max_attempts=10, backoff=Exponential(5, cap=300), timeout=300):
    """Calls a function for a batch that has reached a point of its life."""

    function: str
    """``module:name``"""
    batch: UUID
    event: str
    """then, catch or finally"""

    async def handle(self, ctx: JobContext) -> None:
        """Raises ``UnknownJobClass`` where this worker has not imported the function's module; it is tried again."""
        function = find(self.function)
        batch = ctx.workflow(self.batch)
        if self.event == "catch" and _takes_error(function):
            await function(batch, await batch.error())
        else:
            await function(batch)


def name_of(function: object) -> str:
    """The name under which a worker finds a function again. Raises ``InvalidOption`` for one that it could not find."""
    if not isinstance(function, FunctionType) or not inspect.iscoroutinefunction(function):
        shown = getattr(function, "__qualname__", repr(function))
        raise InvalidOption(
            f"callback is {shown}; give a job, or a module-level `async def` function that takes (batch)"
        )
    name, module = function.__qualname__, function.__module__
    is_found = getattr(sys.modules.get(module), name, None) is function
    if not is_found:
        raise InvalidOption(
            f"callback {name} is a lambda, a closure or a method, which cannot cross to another process; move it to the top"
            f" level of {module}, or give a job"
        )
    if len(_positional(function)) not in (1, 2):
        taken = inspect.signature(function)
        raise InvalidOption(f"callback {name} takes {taken}; it gets (batch), or (batch, error) in catch")
    return f"{module}:{name}"


def find(name: str) -> Function:
    """The function of this name. Raises ``UnknownJobClass``."""
    module, _, attribute = name.partition(":")
    function = getattr(sys.modules.get(module), attribute, None)
    if inspect.iscoroutinefunction(function) and function.__module__ == module and function.__qualname__ == attribute:
        return function
    raise UnknownJobClass(
        f"callback {name} is not known to this worker; import module {module} in the worker, as you do for job classes"
    )


def job_of(callback: Callback, batch: UUID, event: str) -> Job | Pending[Any]:
    """The job that a callback is, or that calls it. Raises ``InvalidOption``."""
    if isinstance(callback, (Job, Pending)):
        return callback
    return BatchCallback(function=name_of(callback), batch=batch, event=event)


def _positional(function: Callable[..., Any]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def _takes_error(function: Function) -> bool:
    return len(_positional(function)) == 2
