"""Dispatching from Django's views: at once, or after the commit."""

from __future__ import annotations

from typing import Any, cast, overload
from uuid import UUID

from django.core.signals import setting_changed
from django.db import transaction

from rf_jobs import sync
from rf_jobs.client.outbox import prepared
from rf_jobs.client.pending import AsyncHandled, Handled, Pending, R
from rf_jobs.client.queue import configure
from rf_jobs.contrib.django.configuration import NAME, effective
from rf_jobs.contrib.hosting import PerProcess
from rf_jobs.model.job import Job

_process = PerProcess(lambda: sync.QueueManager(effective()))


def manager() -> sync.QueueManager:
    """The manager of this process, with telemetry: made at its first use, so that a server may fork after loading."""
    return _process.manager()


@overload
def dispatch(job: AsyncHandled[R]) -> Pending[R]: ...
@overload
def dispatch(job: Handled[R]) -> Pending[R]: ...
def dispatch(job: Any) -> Pending[Any]:
    """A builder; its ``sync()`` dispatches at once and answers with the job's id."""
    return manager().dispatch(job)


def dispatch_on_commit(job: Job | Pending[Any], *, using: str | None = None) -> UUID:
    """Dispatch once the transaction of the database ``using`` has committed; at once where there is none. Answers with the
    job's id, which is known before. A process that dies between the commit and the dispatch loses the job: where that
    matters use ``outbox.dispatch``.

    Raises ``SerializationError`` or ``InvalidOption`` at once; ``BackendError`` where the server cannot be reached comes out
    of the commit, which stands.
    """
    pending: Pending[Any] = job if isinstance(job, Pending) else dispatch(cast(Any, job))
    job_id, send = prepared(pending)
    transaction.on_commit(send, using=using)
    return job_id


def _settings_changed(*, setting: str, **_: Any) -> None:
    if setting == NAME:  # a test overrides it
        _process.close()
        configure(effective())


setting_changed.connect(_settings_changed)
