"""A transactional outbox in Django's own database: ``outbox.dispatch(job)`` inside ``transaction.atomic`` runs the job if and
only if the transaction commits. ``manage.py rf_jobs_outbox`` moves the rows to the server."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, close_old_connections, connections, router, transaction
from django.db.models import DateTimeField, ExpressionWrapper, F
from django.db.models.functions import Now

from rf_jobs.client.outbox import NAME, Haul, InThread, OutboxSource, OutboxWriter, Waiting
from rf_jobs.client.pending import Pending
from rf_jobs.model.job import Job

_writer = OutboxWriter(NAME)


def dispatch(job: Job | Pending[Any], *, using: str | None = None) -> UUID:
    """Dispatch in the current transaction of the database ``using``; answers with the job's id. Options go with the
    builder: ``outbox.dispatch(Queue.dispatch(job).delay(60))``; a delay counts from now.

    Raises ``SerializationError``, ``PayloadTooLarge`` or ``InvalidOption``; then nothing is written.
    """
    model = _model()
    job_id, row, written = _writer.prepare(job)
    rows = model.objects.using(using or router.db_for_write(model))
    rows.create(id=job_id, queue=row.queue, job_class=row.job_class, draft=row.draft)
    written()
    return job_id


def source(using: str = DEFAULT_DB_ALIAS) -> OutboxSource:
    """What a relay empties."""
    return InThread(_Rows(using))


def _model() -> Any:
    from rf_jobs.contrib.django.models import OutboxJob  # noqa: PLC0415 (models are loaded after the apps)

    return OutboxJob


class _Rows:
    """All calls come from one thread, whose connection it is."""

    def __init__(self, using: str) -> None:
        self.name = NAME if using == DEFAULT_DB_ALIAS else f"{NAME} of {using}"
        self._using = using

    @property
    def _all(self) -> Any:
        return _model().objects.using(self._using)

    @property
    def _waiting(self) -> Any:
        rows = self._all.filter(problem=None)
        return rows.annotate(now=ExpressionWrapper(Now(), output_field=DateTimeField())).order_by("seq")

    @contextmanager
    def take(self, limit: int) -> Generator[Haul, None, None]:
        close_old_connections()
        rows = self._waiting
        can_skip = connections[self._using].features.has_select_for_update_skip_locked
        if not can_skip and not rows.exists():
            yield Haul(())
            return
        with transaction.atomic(using=self._using):
            if can_skip:
                rows = rows.select_for_update(skip_locked=True)
            else:  # SQLite has one lock for all, which the first write takes
                rows.filter(seq__lt=0).update(problem=F("problem"))
            haul = Haul(Waiting(row.seq, bytes(row.draft), _age_ms(row)) for row in rows[:limit])
            yield haul
            for seq, why in haul.aside.items():
                self._all.filter(seq=seq).update(problem=why)
            self._all.filter(seq__in=haul.delivered).delete()

    def measure(self, most: int) -> tuple[int, float]:
        close_old_connections()
        first = self._waiting.first()
        if first is None:
            return 0, 0.0
        return self._waiting[:most].count(), _age_ms(first) / 1000

    def close(self) -> None:
        connections[self._using].close()


def _age_ms(row: Any) -> int:
    age: int = max(0, round((row.now - row.written_at).total_seconds() * 1000))
    return age
