"""What holds for a run: the class's options, the dispatch's, the worker's defaults. Worked out once per class where nothing
depends on the job."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import msgspec

from rf_jobs.model.envelope import Envelope
from rf_jobs.model.jobclass import JobClass
from rf_jobs.words.backoff import BackoffLike
from rf_jobs.words.options import Many, timeout_seconds
from rf_jobs.words.timing import millis
from rf_jobs.worker.outcome import Policy

log = logging.getLogger("rf_jobs.worker")
_PER_JOB = frozenset({"max_attempts", "backoff", "timeout"})


@dataclass(frozen=True)
class Defaults:
    """What holds where a class says nothing. ``timeout`` is in seconds."""

    max_attempts: int
    backoff: BackoffLike
    timeout: float
    result_ttl_ms: int
    max_crashes: int


class Plan(msgspec.Struct, frozen=True):
    """For one attempt."""

    policy: Policy
    timeout: float
    """Seconds."""
    on_loop: bool
    """Whether its handler is a coroutine that may run on this event loop."""
    many: Many | None = None
    """How it is to wait for others of its class, to run together with them."""


class Plans:
    """Makes plans; remembers those of classes whose options are all static."""

    def __init__(self, defaults: Defaults) -> None:
        self._defaults = defaults
        self._static: dict[str, Plan] = {}
        d = defaults
        self.unknown = Plan(
            Policy(d.max_attempts, d.backoff, d.result_ttl_ms, max_crashes=d.max_crashes), d.timeout, False
        )
        """For an attempt whose class or payload can't be had."""

    def of(self, entry: JobClass, job: Any, letter: Envelope) -> Plan:
        """The plan for one job. An option method that raises, or answers with nonsense, is logged and passed over."""
        known = self._static.get(entry.name)
        if known is not None and not letter.max:
            return known
        plan = self._make(entry, job, letter)
        if not letter.max and not entry.dynamic & _PER_JOB:
            self._static[entry.name] = plan
        return plan

    def _make(self, entry: JobClass, job: Any, letter: Envelope) -> Plan:
        options, defaults = entry.options, self._defaults
        attempts = self._ask(entry, job, "max_attempts", options.max_attempts)
        backoff = self._ask(entry, job, "backoff", options.backoff)
        policy = Policy(
            letter.max or attempts or defaults.max_attempts,
            defaults.backoff if backoff is None else backoff,
            defaults.result_ttl_ms if options.result_ttl is None else millis(options.result_ttl),
            options.retry_on,
            options.discard_on,
            defaults.max_crashes,
        )
        on_loop = entry.is_async and options.executor != "process"
        return Plan(policy, self._timeout(entry, job), on_loop, entry.many)

    def _ask(self, entry: JobClass, job: Any, name: str, static: Any) -> Any:
        if name not in entry.dynamic:
            return static
        try:
            return getattr(job, name)()
        except Exception:  # the user's code
            log.exception("%s of %s raised; using what the class or the worker says", name, entry.name)
            return static

    def _timeout(self, entry: JobClass, job: Any) -> float:
        value = self._ask(entry, job, "timeout", entry.options.timeout)
        try:
            return self._defaults.timeout if value is None else timeout_seconds(value)
        except Exception:
            log.exception("timeout of %s; using the worker's", entry.name)
            return self._defaults.timeout
