"""``rf-jobs workers``: who is there."""

from __future__ import annotations

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.options import common, paging
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import ago


@click.command
@paging
@common()
def workers(session: Session, limit: int, offset: int) -> None:
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
            ",".join(info.queues), ago(info.started_at), ago(info.last_beat), info.version,
        ]
        for info in shown
    ]  # fmt: skip
    columns = ["worker", "process", "state", "busy", "used", "queues", "started", "last beat", "version"]
    output.table(columns, rows, right=("busy", "used"))
    output.page_note(len(shown), offset, len(found))
