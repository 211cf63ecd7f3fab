"""The views."""

from __future__ import annotations

import os

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path

from rf_jobs import Queue
from rf_jobs.contrib.django import dispatch, dispatch_on_commit, manager, outbox
from tests.contrib.site.jobs import CountOrders, CountOrdersAsync, InProcess
from tests.contrib.site.models import Order


def order(request: HttpRequest, number: int) -> JsonResponse:
    """Dispatches in every way; ``?fail`` rolls back what is in the transaction."""
    ids = {"now": dispatch(InProcess()).sync(), "default": Queue.dispatch(CountOrders()).sync()}
    try:
        with transaction.atomic():
            Order.objects.create(number=number)
            ids["commit"] = dispatch_on_commit(CountOrdersAsync())
            ids["outbox"] = outbox.dispatch(Queue.dispatch(CountOrders()).tags("outbox"))
            if "fail" in request.GET:
                raise ZeroDivisionError  # noqa: TRY301
    except ZeroDivisionError:
        pass
    return JsonResponse({"pid": os.getpid(), **{name: str(job_id) for name, job_id in ids.items()}})


def wait(request: HttpRequest, job_id: str) -> JsonResponse:
    """A job's result."""
    return JsonResponse({"result": manager().wait(job_id, timeout=10)})


urlpatterns = [path("orders/<int:number>", order), path("jobs/<job_id>", wait)]
