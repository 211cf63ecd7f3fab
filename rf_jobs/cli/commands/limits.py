"""``rf-jobs limits``: what bounds jobs in the whole fleet."""

from __future__ import annotations

from typing import Any

import click

from rf_jobs.cli import output
from rf_jobs.cli.options import common, duration
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import NOTHING, number
from rf_jobs.client.limits import LimitInfo
from rf_jobs.client.manager import QueueManager
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.limits import Rate

COLUMNS = ("name", "concurrency", "rate", "algorithm", "running", "held", "set by")


@click.group
def limits() -> None:
    """List limits, and change them while jobs run."""


@limits.command("list")
@common()
def list_limits(session: Session) -> None:
    """List all limits: those of job classes, and shared ones. Running and held are counted where a limit has no keys."""
    found = session.run(lambda manager: manager.limits.list())
    if session.json:
        output.document({"limits": [_shape(info) for info in found]})
    elif not found:
        click.echo("no limit is defined")
    else:
        output.table(COLUMNS, [_row(info) for info in found], right=("concurrency", "running", "held"))


def _row(info: LimitInfo) -> tuple[str, ...]:
    rate = f"{info.rate} in {info.per:g} s" if info.rate is not None else NOTHING
    concurrency = number(info.concurrency) if info.concurrency is not None else NOTHING
    origin = "operator" if info.overridden else "code"
    return (info.name, concurrency, rate, info.algorithm or NOTHING, number(info.running), number(info.held), origin)


def _shape(info: LimitInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "concurrency": info.concurrency,
        "rate": info.rate,
        "per_seconds": info.per,
        "algorithm": info.algorithm or None,
        "running": info.running,
        "held": info.held,
        "overridden": info.overridden,
    }


@limits.command("set")
@click.argument("name")
@click.option("--concurrency", type=int, metavar="N", help="So many at once.")
@click.option("--rate", type=int, metavar="N", help="So many starts in --per.")
@click.option("--per", type=duration, metavar="DURATION", help="For --rate.")
@click.option("--bucket", is_flag=True, help="A token bucket instead of a sliding window.")
@common()
def set_limit(
    session: Session, name: str, concurrency: int | None, rate: int | None, per: float | None, bucket: bool
) -> None:
    """Define a limit, or change it, for the whole fleet and at once.

    What an operator sets counts before what the code says, until `rf-jobs limits reset`.
    """
    if (rate is None) != (per is None):
        raise InvalidOption("give --rate and --per together")
    asked = None if rate is None or per is None else Rate(rate, per, algorithm="bucket" if bucket else "sliding")

    async def work(manager: QueueManager) -> LimitInfo:
        await manager.limits.set(name, concurrency=concurrency, rate=asked)
        return await manager.limits.get(name)

    _say(session, session.change(work))


@limits.command("reset")
@click.argument("name")
@common()
def reset_limit(session: Session, name: str) -> None:
    """Back to what the code says: no limit, where it says nothing."""

    async def work(manager: QueueManager) -> LimitInfo:
        await manager.limits.reset(name)
        return await manager.limits.get(name)

    _say(session, session.change(work))


def _say(session: Session, info: LimitInfo) -> None:
    if session.json:
        output.document(_shape(info))
    else:
        output.table(COLUMNS, [_row(info)], right=("concurrency", "running", "held"))
