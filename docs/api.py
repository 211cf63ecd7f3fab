"""The page of all public names: what each is for, in the words of its docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import rf_jobs
from rf_jobs import sync, testing
from rf_jobs.client.queue import OnQueue
from rf_jobs.model.job import Job

HEAD = """
# All names

Drawn from the docstrings. Everything here imports from `rf_jobs`; what nearly every program needs also from `rf_jobs.prelude`
(`from rf_jobs.prelude import *`). How to use it: [the guides](../README.md). An editor shows the whole docstring, with what is
raised, and the types.
"""
WITH_METHODS: tuple[type[Any], ...] = (
    Job, rf_jobs.JobContext, rf_jobs.Queue, OnQueue, rf_jobs.Pending, rf_jobs.QueueManager, rf_jobs.JobHandle,
    rf_jobs.LeasedJob, rf_jobs.Batch, rf_jobs.Chain, rf_jobs.BatchHandle, rf_jobs.ChainHandle, rf_jobs.Limits,
    rf_jobs.Scheduler, rf_jobs.Schedule, rf_jobs.Schedules, rf_jobs.WorkerConfig, rf_jobs.WorkerPool, rf_jobs.Supervisor,
    rf_jobs.Relay, rf_jobs.Middleware, rf_jobs.EventBus,
)  # fmt: skip
"""Those whose methods are shown too, in the order of the page."""
INNER = {
    "JobContext": {
        "dispatched_ms",
        "is_sealed",
        "keep_line",
        "log_fields",
        "prepare_to_stop",
        "previous_traceparent",
        "request_stop",
        "restore",
        "started_ms",
        "token",
        "trace",
        "unsent",
        "workflow",
    },
    "Pending": {"take"},
    "QueueManager": {"prepare", "send", "send_blocking", "send_group", "chain"},
    "Batch": {"jobs_of", "find_default", "handle"},
    "Chain": {"jobs_of", "find_default", "handle"},
    "Scheduler": {"adopt", "definitions"},
    "Schedule": {"define"},
    "WorkerConfig": {"by_set"},
    "WorkerPool": {"cut_short", "on_beat", "report_stuck", "retire", "stop_jobs", "tell_buried"},
}
"""Methods that other parts of rf-jobs call, and no program needs to."""
WITHOUT_DOCSTRING = {
    "Encrypted": "`Encrypted[str]`, around any type of a field: that field is sealed",
    "Handle": "What a middleware's `around` calls: `await handle()`",
    "JobUpdate": "What `manager.watch` yields: `StateChanged`, `Progress`, `LogLine`, `AttemptError` or `Cancellation`",
}
"""Type aliases cannot have one."""
MORE = {
    "JobContext": "Also `attempt`, `max_attempts`, `queue`, `fencing_token`, `wait`, `worker`: [the context](../guides/job-context.md).",
    "LeasedJob": "Also `id`, `queue`, `attempt`, `fencing_token`, `envelope`.",
    "BatchHandle": "Also `id`.",
    "JobHandle": "Also `id`.",
}
"""Attributes that are set when one is made."""


def api() -> str:
    """The page, without the notice."""
    errors = [name for name in rf_jobs.__all__ if _is_error(getattr(rf_jobs, name))]
    names = [name for name in rf_jobs.__all__ if name not in errors]
    parts = [HEAD, *_table(rf_jobs, names, ("name", "is"))]
    parts += ["\n## Errors\n", "See [errors](../guides/errors.md) for where each is met.\n"]
    parts += _table(rf_jobs, errors, ("error", "says"))
    for cls in WITH_METHODS:
        parts += [f"\n## {cls.__name__}\n", f"{first_sentence(cls.__doc__)}.\n"]
        parts += [f"{MORE[cls.__name__]}\n"] if cls.__name__ in MORE else []
        parts += ["| | |", "|---|---|"]
        parts += [f"| {shown} | {first_sentence(doc)} |" for shown, doc in members(cls)]
    parts += ["\n## rf_jobs.sync\n", f"{first_sentence(sync.__doc__)}. The names are those of `QueueManager`, above.\n"]
    parts += ["\n## rf_jobs.testing\n", "See [testing](../guides/testing.md).\n"]
    parts += _table(testing, list(testing.__all__), ("name", "is"))
    return "\n".join(parts) + "\n"


def members(cls: type[Any]) -> list[tuple[str, str]]:
    """What a program may call or read, with its docstring."""
    inner = INNER.get(cls.__name__, set())
    found = []
    for name in sorted(name for name in dir(cls) if not name.startswith("_") and name not in inner):
        member = inspect.getattr_static(cls, name)
        plain = inspect.unwrap(member.__func__ if isinstance(member, (staticmethod, classmethod)) else member)
        if isinstance(member, property):
            found.append((f"`{name}`", inspect.getdoc(member) or ""))
        elif inspect.isfunction(plain):
            is_awaited = inspect.iscoroutinefunction(plain)
            found.append(
                (f"`{'await ' if is_awaited else ''}{name}({_arguments(plain)})`", inspect.getdoc(plain) or "")
            )
    return found


def _arguments(function: Any) -> str:
    """Names alone: types and defaults are for an editor."""
    stars: dict[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        star = stars.get(parameter.kind, "")
        optional = "=…" if parameter.default is not parameter.empty else ""
        if parameter.name not in ("self", "cls"):
            shown.append(f"{star}{parameter.name}{optional}")
    return ", ".join(shown)


def first_sentence(doc: str | None) -> str:
    """Up to its first full stop, for a cell of a table."""
    text = " ".join((doc or "").split("\n\n")[0].split())
    text = re.split(r"(?<=[a-z)`'\"])\. (?=[A-Z`])", text)[0].rstrip(".:")
    return text.replace("|", "\\|").replace("``", "`")


def _table(module: Any, names: list[str], head: tuple[str, str]) -> list[str]:
    return [
        f"| {head[0]} | {head[1]} |",
        "|---|---|",
        *(f"| `{name}` | {_said(name, getattr(module, name))} |" for name in names),
    ]


def _said(name: str, value: Any) -> str:
    text = WITHOUT_DOCSTRING.get(name) or first_sentence(value.__doc__)
    if not isinstance(value, type) or not dataclasses.is_dataclass(value):
        return text
    if issubclass(value, Job) or name.endswith("Settings"):
        return text
    shown = ", ".join(f"`{field.name}`" for field in dataclasses.fields(value))
    return f"{text}: {shown}"


def _is_error(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException) and issubclass(value, rf_jobs.RfJobsError)
