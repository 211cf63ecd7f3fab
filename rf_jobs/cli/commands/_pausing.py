"""What ``pause`` and ``resume`` share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import click

from rf_jobs.cli import output
from rf_jobs.cli.session import Session, known_queue
from rf_jobs.client.manager import QueueManager


def each_queue(
    session: Session,
    names: tuple[str, ...],
    act: Callable[[QueueManager, str], Awaitable[bool]],
    word: str,
    *,
    force: bool,
) -> None:
    """Do it to each queue and say which it was new to. Checks all names first."""

    async def work(manager: QueueManager) -> dict[str, bool]:
        if not force:
            for name in names:
                await known_queue(manager, name)
        return {name: await act(manager, name) for name in names}

    changed = session.change(work)
    if session.json:
        output.document({"queues": [{"name": name, "changed": new} for name, new in changed.items()]})
        return
    for name, new in changed.items():
        click.echo(f"{name}: {word}" if new else f"{name}: was {word} already")
