"""Answers: one JSON document, or tables and lines. rich draws where it is installed and somebody looks."""

from __future__ import annotations

import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import click
import msgspec

from rf_jobs.words.printing import clean


def document(value: Any) -> None:
    """The one JSON document."""
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2).decode())


def _rich(stream: Any) -> bool:
    return bool(stream.isatty()) and find_spec("rich") is not None


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table; the columns named in ``right`` hold numbers."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if _rich(sys.stdout):
        _rich_table(columns, cells, right)
    else:
        _plain_table(columns, cells, right)


def _plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    for line in table_lines(columns, rows, right=right):
        click.echo(line)


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> list[str]:
    """A plain table, its head first. The cells must be clean."""
    widths = [
        max(len(column), *(len(row[at]) for row in rows)) if rows else len(column) for at, column in enumerate(columns)
    ]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in [list(columns), *rows]
    ]


def _rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box  # noqa: PLC0415 (only where it is needed: a worker never loads it)
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console().print(drawn)


def pairs(facts: Sequence[tuple[str, str]]) -> None:
    """Names and values, in two columns."""
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        click.echo(f"{click.style(name.ljust(width), bold=True)}  {clean(value)}")


def heading(text: str) -> None:
    """A line above a part."""
    click.echo(f"\n{click.style(text, bold=True)}")


def page_note(shown: int, offset: int, total: int | None) -> None:
    """Which part of a list this was, where it was not the whole."""
    if total is not None and (offset or shown < total):
        click.echo(f"{offset + 1 if shown else offset}-{offset + shown} of {total}; see --limit and --offset", err=True)


@contextmanager
def busy(what: str) -> Generator[None, None, None]:
    """Shows that something takes its time, where somebody looks."""
    if not _rich(sys.stderr):
        yield
        return
    from rich.console import Console  # noqa: PLC0415 (only where it is needed)

    with Console(stderr=True).status(what):
        yield


def _nobody(_: int) -> None:
    """Nobody looks."""


@contextmanager
def progress(what: str, total: int) -> Generator[Any, None, None]:
    """A bar; the value is a function to call with how much is done."""
    if not _rich(sys.stderr):
        yield _nobody
        return
    from rich.console import Console  # noqa: PLC0415 (only where it is needed)
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
