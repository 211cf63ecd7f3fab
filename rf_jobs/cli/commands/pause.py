"""``rf-jobs pause``."""

from __future__ import annotations

import click

from rf_jobs.cli.commands._pausing import each_queue
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session


@click.command
@click.argument("names", metavar="QUEUE...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also a queue that never held a job.")
@common()
def pause(session: Session, names: tuple[str, ...], force: bool) -> None:
    """Stop all workers from fetching from these queues.

    Running jobs go on, dispatches are taken, nothing is lost. Ends with `rf-jobs resume`.
    """
    each_queue(session, names, lambda manager, name: manager.pause(name), "paused", force=force)
