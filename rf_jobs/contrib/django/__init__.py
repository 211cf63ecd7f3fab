"""Django: add ``"rf_jobs.contrib.django"`` to ``INSTALLED_APPS``. Job classes in ``<app>/jobs.py`` are found by themselves.

    from rf_jobs.contrib.django import dispatch, dispatch_on_commit, outbox

    dispatch(SendEmail(to=user.email)).sync()              # now, whatever becomes of the transaction
    dispatch_on_commit(SendEmail(to=user.email))           # after the commit; lost if the process dies in between
    outbox.dispatch(SendEmail(to=user.email))              # in the transaction: if and only if it commits

``manage.py rf_jobs_worker`` runs the jobs, ``manage.py rf_jobs_outbox`` empties the outbox.
"""

from rf_jobs.contrib.django import outbox
from rf_jobs.contrib.django.dispatching import dispatch, dispatch_on_commit, manager

__all__ = ["dispatch", "dispatch_on_commit", "manager", "outbox"]
