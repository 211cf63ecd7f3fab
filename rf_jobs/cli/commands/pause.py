"""``rf-jobs pause``."""

from __future__ import annotations

import click

from rf_jobs.cli.commands._pausing import Targets, each
from rf_jobs.cli.options import common, duration
from rf_jobs.cli.session import Session
from rf_jobs.words.errors import InvalidOption


@click.command
@click.argument("names", metavar="[QUEUE...]", nargs=-1)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="A job class, in whatever queue; repeatable.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Jobs with this tag, such as tenant:7; repeatable.")
@click.option(
    "--for", "for_", type=duration, metavar="DURATION", help="Classes and tags: resume by itself after so long."
)
@click.option("--force", is_flag=True, help="Also a queue that never held a job.")
@common()
def pause(
    session: Session, names: tuple[str, ...], classes: tuple[str, ...], tags: tuple[str, ...], for_: float | None, force: bool
) -> None:  # fmt: skip
    """Stop all workers from fetching from these queues, or from starting jobs of a class or with a tag.

    Running jobs go on, dispatches are taken, nothing is lost. Ends with `rf-jobs resume`.
    """
    if for_ is not None and names:
        raise InvalidOption("--for is of classes and tags: a queue stays paused until it is resumed")
    acts = {
        "queues": lambda manager, name: manager.pause(name),
        "classes": lambda manager, name: manager.pause_class(name, for_),
        "tags": lambda manager, name: manager.pause_key(name, for_),
    }
    each(session, Targets(names, classes, tags), acts, "paused", force=force)
