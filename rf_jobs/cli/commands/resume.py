"""``rf-jobs resume``."""

from __future__ import annotations

import click

from rf_jobs.cli.commands._pausing import each_queue
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session


@click.command
@click.argument("names", metavar="QUEUE...", nargs=-1, required=True)
@common()
def resume(session: Session, names: tuple[str, ...]) -> None:
    """Let workers fetch from these queues again."""
    each_queue(session, names, lambda manager, name: manager.resume(name), "resumed", force=False)
