"""What ``pause`` and ``resume`` share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from rf_jobs.cli import output
from rf_jobs.cli.session import Session, known_queue
from rf_jobs.client.manager import QueueManager
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.printing import clean

Act = Callable[[QueueManager, str], Awaitable[bool]]


@dataclass(frozen=True)
class Targets:
    """What is to be paused or resumed."""

    queues: Sequence[str]
    classes: Sequence[str]
    tags: Sequence[str]

    def check(self) -> None:
        """Raises ``InvalidOption`` where there is nothing."""
        if not (self.queues or self.classes or self.tags):
            raise InvalidOption("nothing was named; give queues, --class NAME or --tag TAG")


def each(session: Session, targets: Targets, acts: Mapping[str, Act], word: str, *, force: bool) -> None:
    """Do it to each and say which it was new to. Checks all queues' names first. ``acts``: of queues, classes and tags."""
    targets.check()

    async def work(manager: QueueManager) -> list[tuple[str, str, bool]]:
        if not force:
            for name in targets.queues:
                await known_queue(manager, name)
        return [(kind, name, await act(manager, name)) for kind, act in acts.items() for name in getattr(targets, kind)]

    changed = session.change(work)
    if session.json:
        output.document(
            {kind: [{"name": name, "changed": new} for of, name, new in changed if of == kind] for kind in acts}
        )
        return
    for kind, name, new in changed:
        shown = name if kind == "queues" else f"{'class' if kind == 'classes' else 'tag'} {clean(name)}"
        click.echo(f"{shown}: {word}" if new else f"{shown}: was {word} already")
