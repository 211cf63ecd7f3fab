"""``rf-jobs workers``: who is there, and what they can run."""

from __future__ import annotations

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.options import common, paging
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import NOTHING, ago, number
from rf_jobs.core.records import WorkerInfo
from rf_jobs.model.catalog import Catalog


@click.command
@click.option(
    "--classes", is_flag=True, help="List the job classes that they can run, with versions and earlier names."
)
@paging
@common()
def workers(session: Session, classes: bool, limit: int, offset: int) -> None:
    """List the worker processes that live, and those that fell silent a moment ago (state `stale`)."""
    found = sorted(session.run(lambda manager: manager.workers()), key=lambda info: (info.host, info.pid))
    shown = found[offset : offset + limit]
    if session.json:
        output.document({"workers": [shapes.worker(info) for info in shown], "total": len(found)})
        return
    if not found:
        click.echo("no worker is alive; start one: rf-jobs worker MODULE")
        return
    rows = [
        [
            info.id, f"{info.host}:{info.pid}", info.state, f"{info.busy}/{info.slots}", f"{info.utilization:.0%}",
            ",".join(info.queues), _count(info.catalog), ago(info.started_at), ago(info.last_beat), info.version,
        ]
        for info in shown
    ]  # fmt: skip
    columns = ["worker", "process", "state", "busy", "used", "queues", "classes", "started", "last beat", "version"]
    output.table(columns, rows, right=("busy", "used", "classes"))
    output.page_note(len(shown), offset, len(found))
    if classes:
        _show_classes(shown)


def _count(catalog: Catalog | None) -> str:
    if catalog is None:
        return NOTHING
    return number(len(catalog.classes)) + ("" if catalog.complete else "+")


def _show_classes(shown: list[WorkerInfo]) -> None:
    """What they can run, once for those that can run the same."""
    by_catalog: dict[str, list[WorkerInfo]] = {}
    for info in shown:
        by_catalog.setdefault(info.facts.get("classes", ""), []).append(info)
    for infos in by_catalog.values():
        output.heading(f"run by {', '.join(info.id for info in infos)}")
        catalog = infos[0].catalog
        if catalog is None:
            click.echo("they have not said; an older release, or one that the server has forgotten")
            continue
        earlier: dict[str, list[str]] = {}
        for alias, name in catalog.aliases.items():
            earlier.setdefault(name, []).append(alias)
        rows = [[name, str(version), ", ".join(earlier.get(name, []))] for name, version in catalog.classes.items()]
        output.table(["class", "version", "also"], rows, right=("version",))
        if not catalog.complete:
            click.echo("... and more: the list was too long to be kept")
