"""The app's table."""

from __future__ import annotations

from django.db import models


class Order(models.Model):
    """What a job is dispatched with."""

    number: models.IntegerField[int, int] = models.IntegerField(primary_key=True)

    class Meta:
        app_label = "site"

    def __str__(self) -> str:
        return f"order {self.number}"
