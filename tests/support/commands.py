"""Whether a command line of rf-jobs could be run as it is written."""

from __future__ import annotations

import shlex
from contextlib import ExitStack

import click

from rf_jobs.cli.app import app


def check_command(line: str) -> None:
    """Raises click's ``UsageError`` where there is no such command, argument or option; runs nothing."""
    program, *words = shlex.split(line)
    assert program == "rf-jobs"
    command: click.Command = app
    with ExitStack() as stack:
        parent: click.Context | None = None
        while isinstance(command, click.Group):
            parent = stack.enter_context(command.make_context(command.name, words[:1], parent=parent))
            _, found, words = command.resolve_command(parent, words)
            assert found is not None
            command = found
        stack.enter_context(command.make_context(command.name, words, parent=parent))
