"""The outbox's table."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.db import models
from django.db.models.functions import Now


class OutboxJob(models.Model):
    """A job that a transaction dispatched and no relay has moved yet."""

    seq: models.BigAutoField[int, int] = models.BigAutoField(
        primary_key=True, help_text="rows are relayed in this order"
    )
    id: models.UUIDField[UUID, UUID] = models.UUIDField(help_text="the job's id")
    queue: models.CharField[str, str] = models.CharField(max_length=128)
    job_class: models.TextField[str, str] = models.TextField()
    draft: models.BinaryField[bytes, bytes] = models.BinaryField(help_text="the dispatch, as rf-jobs packs it")
    written_at: models.DateTimeField[datetime, datetime] = models.DateTimeField(db_default=Now(), editable=False)
    problem: models.TextField[str | None, str | None] = models.TextField(  # noqa: DJ001 (nothing is not the same as an empty reason)
        null=True, blank=True, help_text="why it cannot be relayed; such a row stays until somebody looks"
    )  # fmt: skip

    class Meta:
        """What Django asks for."""

        db_table = "rf_jobs_outbox"
        verbose_name = "job in the outbox"
        verbose_name_plural = "jobs in the outbox"

    def __str__(self) -> str:
        return f"{self.job_class} {self.id}"
