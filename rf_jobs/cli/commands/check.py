"""``rf-jobs check``: could the code here run what waits there?"""

from __future__ import annotations

from typing import Any

import click

from rf_jobs.cli import output
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.importing import import_jobs
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session, known_queue
from rf_jobs.cli.wording import number
from rf_jobs.client.checking import Fault, Report
from rf_jobs.client.checking import check as compare
from rf_jobs.client.judging import UNREAD
from rf_jobs.client.manager import QueueManager
from rf_jobs.core.census import Group
from rf_jobs.model.importing import require_jobs
from rf_jobs.model.jobclass import registry

COLORS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command
@click.argument("modules", metavar="[MODULE]...", nargs=-1)
@click.option("--queues", "queues", metavar="NAMES", help="Only these, separated by commas.  [default: all]")
@click.option("--all", "everything", is_flag=True, help="Look at every job, not at a sample of each queue and state.")
@click.option("--dead", is_flag=True, help="Look at dead letters too: could they be replayed?")
@click.option("--no-workers", is_flag=True, help="Do not ask whether live workers serve the queues.")
@click.option("--strict", is_flag=True, help="Warnings fail too.")
@common()
def check(
    session: Session, modules: tuple[str, ...], queues: str | None, everything: bool, dead: bool, no_workers: bool, strict: bool
) -> int:  # fmt: skip
    """Compare the job classes of MODULE... with what waits in the queues, before they are deployed. Reads only.

    For every class and version among the jobs: is it known here, by its name or an alias, and does its payload fit? Are the
    queues served by live workers? Are the classes themselves in order? Exits with 1 when something could not be run.
    """
    require_jobs(import_jobs(session, modules))
    names = [name.strip() for name in (queues or "").split(",") if name.strip()]

    async def work(manager: QueueManager) -> Report:
        chosen = [await known_queue(manager, name) for name in names]
        with output.progress("looking at the jobs", 100) as bar:
            return await compare(
                manager, registry, queues=chosen, dead=dead, everything=everything, workers=not no_workers,
                seen=lambda done, todo: bar(100 * done // max(todo, 1)),
            )  # fmt: skip

    report = session.run(work)
    if session.json:
        output.document(_shape(report))
    else:
        _show(report)
    return Exit.OK if report.spotless or (report.ok and not strict) else Exit.NO


def _status(group: Group) -> str:
    return "ok" if not group.verdict else "warn" if group.verdict.startswith(UNREAD) else "fail"


def _grade(fault: Fault) -> str:
    return "fail" if fault.grave else "warn"


def _shape(report: Report) -> dict[str, Any]:
    return {
        "status": "ok" if report.spotless else "warn" if report.ok else "fail",
        "classes": report.classes,
        "jobs": {"seen": report.seen, "standing": report.standing},
        "groups": [
            {
                "status": _status(group),
                "queue": group.queue,
                "class": group.job_class,
                "version": group.version,
                "jobs": group.jobs,
                "states": group.counts,
                "verdict": group.verdict,
                "example": group.example,
            }
            for group in report.groups
        ],
        "faults": [
            {"status": _grade(fault), "where": fault.where, "what": fault.what, "todo": fault.todo}
            for fault in report.faults
        ],
    }


def _show(report: Report) -> None:
    if report.groups:
        columns = ["", "queue", "class", "version", "jobs", "states", "verdict"]
        output.table(columns, [_row(group) for group in report.groups], right=("version", "jobs"))
    for fault in report.faults:
        mark = click.style(_grade(fault), fg=COLORS[_grade(fault)], bold=True)
        click.echo(f"{mark}  {fault.where}: {fault.what}\n      -> {fault.todo}")
    looked = "all" if report.seen >= report.standing else f"{number(report.seen)} of {number(report.standing)}"
    click.echo(
        f"{number(report.classes)} job classes; {looked} jobs looked at{'' if looked == 'all' else ' (--all: every one)'}"
    )
    lost = sum(group.jobs for group in report.unrunnable)
    if lost:
        examples = ", ".join(group.example for group in report.unrunnable[:3])
        click.echo(f"{number(lost)} of them could not be run by this code, such as {examples}")
    elif report.ok:
        click.echo("this code can run what waits")


def _row(group: Group) -> list[str]:
    states = ", ".join(f"{number(count)} {state}" for state, count in sorted(group.counts.items()))
    name = group.job_class or "?"
    return [
        _status(group),
        group.queue,
        name,
        str(group.version),
        number(group.jobs),
        states,
        group.verdict or "can be run",
    ]
