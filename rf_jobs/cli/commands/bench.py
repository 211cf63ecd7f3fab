"""``rf-jobs bench``: how fast it is here, roughly."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Coroutine
from typing import Any, TypeVar

import click

from rf_jobs.cli import output
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import number
from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.words.config import Settings, mask_url

NAMESPACE = "rf-bench"
NOTE = "indicative: one process, client and worker share it; for a comparison see `make bench`"
T = TypeVar("T")


@click.command
@click.option(
    "--jobs",
    type=click.IntRange(10),
    default=10_000,
    show_default=True,
    help="Dispatch so many, concurrently and in bulk.",
)
@click.option("--samples", type=click.IntRange(1), default=200, show_default=True, help="Time so many lone jobs.")
@common()
def bench(session: Session, jobs: int, samples: int) -> None:
    """Measure dispatching, draining and latency with jobs that do nothing.

    On an embedded server of its own, which keeps nothing; with --redis-url on that one, in the namespace rf-bench
    (unless --namespace names another), where a few small keys stay behind. Telemetry is off.
    """
    from rf_jobs.cli.measuring import measure  # noqa: PLC0415 (it registers a job class)

    with contextlib.ExitStack() as stack:
        if session.given("jobs.redis_url"):
            server = mask_url(session.settings.jobs.redis_url)
        else:
            session.override("jobs.redis_url", stack.enter_context(EmbeddedServer.ephemeral()).url)
            server = "embedded"
        if not session.given("jobs.namespace"):
            session.override("jobs.namespace", NAMESPACE)
        with output.progress("draining", jobs // 10 + 2 * jobs) as told:
            found = _run(measure(_settings(session.settings), jobs, samples, told))
    if session.json:
        output.document({"server": server, **dataclasses.asdict(found), "note": NOTE})
        return
    output.pairs(
        [
            ("server", server),
            ("dispatch, one by one", f"{number(found.dispatch_single_per_second)} jobs/s"),
            ("dispatch, concurrently", f"{number(found.dispatch_concurrent_per_second)} jobs/s"),
            ("dispatch, in bulk", f"{number(found.dispatch_bulk_per_second)} jobs/s"),
            ("drain", f"{number(found.drain_per_second)} jobs/s ({number(found.jobs)} jobs)"),
            ("a lone job starts after", f"{found.latency_p50_ms:.2f} ms (p50), {found.latency_p99_ms:.2f} ms (p99)"),
        ]
    )
    click.echo(NOTE)


def _settings(settings: Settings) -> Settings:
    """What is measured is the default worker with room; what it leaves behind is nothing."""
    return dataclasses.replace(
        settings,
        jobs=dataclasses.replace(settings.jobs, completed_keep=0, default_queue="bench"),
        worker=dataclasses.replace(settings.worker, queues=("bench",), workers=1, max_concurrent_jobs=100, processes=1),
    )


def _run(work: Coroutine[Any, Any, T]) -> T:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 (an extra; the worker uses it too)

        return uvloop.run(work)
    return asyncio.run(work)
