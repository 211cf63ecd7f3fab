"""``rf-jobs resume``."""

from __future__ import annotations

import click

from rf_jobs.cli.commands._pausing import Targets, each
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session


@click.command
@click.argument("names", metavar="[QUEUE...]", nargs=-1)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="A job class; repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Jobs with this tag; repeatable.")
@common()
def resume(session: Session, names: tuple[str, ...], classes: tuple[str, ...], tags: tuple[str, ...]) -> None:
    """Let workers fetch from these queues again, and start jobs of these classes and tags."""
    acts = {
        "queues": lambda manager, name: manager.resume(name),
        "classes": lambda manager, name: manager.resume_class(name),
        "tags": lambda manager, name: manager.resume_key(name),
    }
    each(session, Targets(names, classes, tags), acts, "resumed", force=False)
