"""``WorkerConfig``: a worker's settings, by keyword or fluently."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Self, TypedDict, Unpack

import msgspec

from rf_jobs.store.keys import Shards
from rf_jobs.words.config_sets import read_sets
from rf_jobs.words.config_settings import WorkerSet, WorkerSettings
from rf_jobs.words.errors import ConfigError, InvalidOption
from rf_jobs.words.ids import queue_name
from rf_jobs.words.timing import Duration, seconds

_DURATIONS = {
    "timeout": "timeout_seconds",
    "sleep": "sleep_seconds",
    "shutdown_timeout": "shutdown_timeout_seconds",
    "lease": "lease_seconds",
    "park_ttl": "park_ttl_seconds",
    "grace": "grace_seconds",
    "ageing": "ageing_seconds",
    "max_age": "max_age_seconds",
}
_PLAIN = (
    "workers", "queues", "max_concurrent_jobs", "processes", "max_crashes", "max_prefetch", "max_memory_mb", "max_jobs",
    "http_host", "http_port",
)  # fmt: skip
Queues = Sequence[str] | Mapping[str, int]


class WorkerOptions(TypedDict, total=False):
    """The keywords of ``WorkerConfig``, for type checkers."""

    workers: int
    queues: Queues
    max_concurrent_jobs: int
    processes: int
    timeout: Duration | None
    sleep: Duration
    shutdown_timeout: Duration
    lease: Duration
    max_crashes: int
    park_ttl: Duration
    max_prefetch: int
    grace: Duration
    ageing: Duration
    max_memory_mb: int | None
    max_jobs: int | None
    max_age: Duration | None
    sets: Sequence[WorkerSet]
    http_host: str
    http_port: int | None


class WorkerConfig:
    """What one ``rf-jobs worker`` does. Each keyword is also a method that answers with a changed copy::

        WorkerConfig.default().workers(4).queues(["default", "emails"]).timeout(30)

    ``workers`` times ``max_concurrent_jobs`` is how many jobs one process runs at once. ``queues`` are served in strict
    order, or by weight where a mapping is given. Durations are seconds or timedeltas. Raises ``ConfigError``.
    """

    def __init__(self, settings: WorkerSettings | None = None, **options: Unpack[WorkerOptions]) -> None:
        if settings is not None and not isinstance(settings, WorkerSettings):
            raise ConfigError(
                f"settings is {settings!r}; give a WorkerSettings, or an option by its name: WorkerConfig(workers=4)"
            )
        self.settings = _merged(settings or WorkerSettings(), options)

    @classmethod
    def default(cls) -> Self:
        """All defaults."""
        return cls()

    def _with(self, **options: Unpack[WorkerOptions]) -> Self:
        return type(self)(self.settings, **options)

    def workers(self, count: int) -> Self:
        """How many groups of ``max_concurrent_jobs``."""
        return self._with(workers=count)

    def queues(self, queues: Queues) -> Self:
        """Names in strict order, or name to weight."""
        return self._with(queues=queues)

    def timeout(self, timeout: Duration) -> Self:
        """For jobs whose class sets none."""
        return self._with(timeout=timeout)

    def sleep(self, sleep: Duration) -> Self:
        """The safety-net poll of an idle worker."""
        return self._with(sleep=sleep)

    def max_concurrent_jobs(self, count: int) -> Self:
        """Jobs at once of each of the ``workers``."""
        return self._with(max_concurrent_jobs=count)

    def processes(self, count: int) -> Self:
        """Supervised child processes."""
        return self._with(processes=count)

    def shutdown_timeout(self, timeout: Duration) -> Self:
        """How long a stop waits for running jobs before it hands them back."""
        return self._with(shutdown_timeout=timeout)

    def ageing(self, ageing: Duration) -> Self:
        """After this long a ready job goes up a priority; 0: never."""
        return self._with(ageing=ageing)

    def lease(self, lease: Duration) -> Self:
        """After this long without a sign of life a job is taken back."""
        return self._with(lease=lease)

    def max_crashes(self, count: int) -> Self:
        """A job that killed its worker this often is a dead letter."""
        return self._with(max_crashes=count)

    def park_ttl(self, ttl: Duration) -> Self:
        """How long a job waits for a worker that knows its class."""
        return self._with(park_ttl=ttl)

    def max_prefetch(self, count: int) -> Self:
        """The most jobs that a process buffers."""
        return self._with(max_prefetch=count)

    def grace(self, grace: Duration) -> Self:
        """From a timeout to the hard kill."""
        return self._with(grace=grace)

    def max_memory_mb(self, megabytes: int | None) -> Self:
        """A child above it is replaced."""
        return self._with(max_memory_mb=megabytes)

    def max_jobs(self, count: int | None) -> Self:
        """A child is replaced after so many jobs."""
        return self._with(max_jobs=count)

    def max_age(self, age: Duration | None) -> Self:
        """A child is replaced at this age, or up to a fifth sooner, so that not all go at once."""
        return self._with(max_age=age)

    def sets(self, *sets: WorkerSet) -> Self:
        """Queues with processes of their own, for a ``Supervisor``; what a set leaves out is as in this config."""
        return self._with(sets=sets)

    def by_set(self) -> dict[str, WorkerConfig]:
        """The config of each set by its name; without sets this one alone, under ''."""
        return {
            each.name: WorkerConfig(
                replace(
                    self.settings,
                    sets=(),
                    queues=each.queues,
                    workers=each.workers or self.settings.workers,
                    max_concurrent_jobs=each.max_concurrent_jobs or self.settings.max_concurrent_jobs,
                    processes=each.processes or self.settings.processes,
                )
            )
            for each in self.settings.sets
        } or {"": self}

    def http(self, port: int | None, host: str = "127.0.0.1") -> Self:
        """Where metrics and probes are served: by a supervisor for all its processes, else by telemetry for its pool."""
        return self._with(http_port=port, http_host=host)

    def __repr__(self) -> str:
        return f"WorkerConfig({self.settings!r})"


def _merged(settings: WorkerSettings, options: WorkerOptions) -> WorkerSettings:
    changes: dict[str, Any] = {}
    given: dict[str, Any] = {**options}
    for name, value in given.items():
        if name in _DURATIONS:
            try:
                changes[_DURATIONS[name]] = None if value is None else seconds(value, name)
            except InvalidOption as error:
                raise ConfigError(f"worker option {error}") from None
        elif name == "queues":
            changes[name] = check_queues(value)
        elif name == "sets":
            changes[name] = _check_sets(value)
        elif name in _PLAIN:
            changes[name] = value
        else:
            known = ", ".join(sorted([*_DURATIONS, *_PLAIN, "sets"]))
            raise ConfigError(f"unknown worker option {name!r}; known are {known}")
    result = replace(settings, **changes)
    try:
        msgspec.convert(msgspec.to_builtins(result), WorkerSettings)
    except (msgspec.ValidationError, TypeError, UnicodeEncodeError) as error:
        raise ConfigError(f"worker option: {error}") from None
    return result


def _check_sets(value: object) -> tuple[WorkerSet, ...]:
    try:
        return read_sets(value)
    except (ValueError, InvalidOption) as error:
        raise ConfigError(f"worker option sets: {error}") from None


def check_queues(value: Queues) -> tuple[str, ...] | dict[str, int]:
    """Queues as settings hold them; raises ``ConfigError``."""
    if isinstance(value, str) or not isinstance(value, (Sequence, Mapping)):
        raise ConfigError(f"queues is {value!r}; give a list of names, or a mapping of name to weight")
    try:
        if isinstance(value, Mapping):
            for name, weight in value.items():
                if not isinstance(weight, int) or weight < 1:
                    raise ConfigError(f"queue {name!r} has the weight {weight!r}; it must be a whole number from 1")
            return {queue_name(name): weight for name, weight in value.items()}
        return tuple(dict.fromkeys(queue_name(name) for name in value))
    except InvalidOption as error:
        raise ConfigError(str(error)) from None


class QueueOrder:
    """In which order a fetch looks at the queues."""

    def __init__(self, queues: tuple[str, ...] | Mapping[str, int], default: str) -> None:
        self._weights = dict(queues) if isinstance(queues, Mapping) else None
        self.names: tuple[str, ...] = tuple(queues) or (default,)

    def runs(self, shards: Shards) -> list[list[str]]:
        """The queues of the next fetches, one for each: those of one shard that may be asked together."""
        queues = self.next()
        if self._weights is None:
            return [list(run) for _, run in groupby(queues, key=shards.of)]
        return list(shards.split(queues).values())

    def next(self) -> tuple[str, ...]:
        """Strict order as given; with weights, a draw in which each queue comes first as often as its weight says."""
        if self._weights is None:
            return self.names
        # Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006): sort by u**(1/w).
        weights = self._weights
        return tuple(sorted(self.names, key=lambda name: -(random.random() ** (1.0 / weights[name]))))  # noqa: S311
