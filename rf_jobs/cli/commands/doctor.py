"""``rf-jobs doctor``: is all well, and if not, what to do."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from rf_jobs.cli import output
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.options import common
from rf_jobs.cli.session import RETRY_SECONDS, Session
from rf_jobs.cli.wording import number
from rf_jobs.core.doctor import Check, DeepReport, check_up, deep_check, worst
from rf_jobs.store.keys import shards_of
from rf_jobs.store.redis import AsyncStore

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}
SHOWN = 50


@click.command
@click.option(
    "--deep", is_flag=True, help="Also walk over every job and check that nothing is lost, doubled or left over."
)
@click.option(
    "--limit", type=click.IntRange(1), default=1_000_000, show_default=True, help="Walk over at most so many jobs."
)
@click.option(
    "--keys-per-second", type=click.IntRange(100), default=20_000, show_default=True, help="Walk no faster than this."
)
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@common()
def doctor(session: Session, deep: bool, limit: int, keys_per_second: int, strict: bool) -> int:
    """Check the server, the workers, the queues and, with --deep, every job. Reads only.

    Exits with 1 when a check fails. The deep walk is safe on a live store: what looks wrong in passing is looked at
    again before it is reported.
    """
    checks, report = asyncio.run(_examine(session, deep, limit, keys_per_second))
    if report is not None:
        checks.append(_summary(report))
    if session.json:
        output.document(_shape(checks, report))
    else:
        _show(checks, report)
    status = worst(checks)
    return Exit.NO if status == "fail" or (strict and status == "warn") else Exit.OK


async def _examine(session: Session, deep: bool, limit: int, rate: int) -> tuple[list[Check], DeepReport | None]:
    settings = session.settings
    jobs = settings.jobs
    # A server that may evict is not fit for jobs, but it is what a doctor has to see.
    store = AsyncStore(jobs.redis_url, shards_of(jobs), allow_eviction=True, retry_for=RETRY_SECONDS)
    try:
        checks = await check_up(store, queue_age_objective=jobs.queue_age_objective_seconds)
        if not deep:
            return checks, None
        with output.busy("walking over the jobs"):
            return checks, await deep_check(store, limit=limit, keys_per_second=rate)
    finally:
        await store.aclose()


def _summary(report: DeepReport) -> Check:
    what = f"{number(report.jobs)} jobs and {number(report.keys)} keys in {report.seconds:.1f} s"
    if report.problems:
        return Check(
            "deep check",
            "fail",
            f"{what}: {len(report.problems)} problems",
            "see below; please report them, with what happened before",
        )
    if not report.complete:
        return Check("deep check", "warn", f"{what}; the limit ended the walk", "raise --limit to see all")
    if report.unsettled:
        return Check("deep check", "warn", f"{what}; {report.unsettled} jobs moved too fast to judge", "run it again")
    return Check("deep check", "ok", f"{what}: each stands in exactly one place, nothing is lost or left over")


def _shape(checks: list[Check], report: DeepReport | None) -> dict[str, Any]:
    shape: dict[str, Any] = {"status": worst(checks), "checks": checks}
    if report is not None:
        shape["deep"] = report
    return shape


def _show(checks: list[Check], report: DeepReport | None) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        mark = click.style(check.status.ljust(4), fg=COLORS[check.status], bold=check.status != "ok")
        click.echo(f"{mark}  {check.name.ljust(width)}  {check.what}")
        if check.todo:
            click.echo(f"{' ' * (width + 8)}-> {check.todo}")
    problems = report.problems if report else []
    for problem in problems[:SHOWN]:
        click.echo(f"  * {problem}")
    if len(problems) > SHOWN:
        click.echo(f"  ... and {len(problems) - SHOWN} more; --json has them all")
