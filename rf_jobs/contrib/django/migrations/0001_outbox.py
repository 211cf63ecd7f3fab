"""The outbox's table."""

from __future__ import annotations

import django.db.models.functions
from django.db import migrations, models


class Migration(migrations.Migration):
    """Makes it."""

    initial = True

    operations = [  # noqa: RUF012 (as Django wants it)
        migrations.CreateModel(
            name="OutboxJob",
            fields=[
                (
                    "seq",
                    models.BigAutoField(help_text="rows are relayed in this order", primary_key=True, serialize=False),
                ),
                ("id", models.UUIDField(help_text="the job's id")),
                ("queue", models.CharField(max_length=128)),
                ("job_class", models.TextField()),
                ("draft", models.BinaryField(help_text="the dispatch, as rf-jobs packs it")),
                ("written_at", models.DateTimeField(db_default=django.db.models.functions.Now(), editable=False)),
                (
                    "problem",
                    models.TextField(
                        blank=True,
                        help_text="why it cannot be relayed; such a row stays until somebody looks",
                        null=True,
                    ),
                ),
            ],
            options={
                "verbose_name": "job in the outbox",
                "verbose_name_plural": "jobs in the outbox",
                "db_table": "rf_jobs_outbox",
            },
        ),
    ]
