"""``rf-jobs schedules``: what runs when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from rf_jobs.cli import output
from rf_jobs.cli.commands.dispatch import build
from rf_jobs.cli.importing import find_class, import_jobs
from rf_jobs.cli.options import common, confirm, confirmation, duration, moment, paging, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.cli.shapes import time
from rf_jobs.cli.wording import NOTHING, ago, class_name, number, short, when
from rf_jobs.cli.wording import duration as lasting
from rf_jobs.client.manager import QueueManager
from rf_jobs.core.schedules import ScheduleInfo
from rf_jobs.words.recurrence import Misfire
from rf_jobs.words.states import Priority


@click.group
def schedules() -> None:
    """List, show, add, pause, resume, trigger and remove schedules."""


@schedules.command("list")
@paging
@common()
def list_(session: Session, limit: int, offset: int) -> None:
    """List the schedules, the next to run first; those that do not run come last."""

    async def work(manager: QueueManager) -> tuple[list[ScheduleInfo], int, int]:
        own = manager.schedules
        return await own.list(offset, limit), await own.count(), await own.schedulers()

    shown, total, schedulers = session.run(work)
    if session.json:
        document = {"schedules": [shape(info) for info in shown], "total": total, "schedulers": schedulers}
        output.document(document)
        return
    if not total:
        click.echo("there are no schedules")
        return
    columns = ["schedule", "when", "job", "next run", "last run", "outcome", "lag", "missed", ""]
    output.table(columns, [_row(info) for info in shown], right=("lag", "missed"))
    output.page_note(len(shown), offset, total)
    if not schedulers:
        click.echo("no scheduler lives: nothing of it runs (rf-jobs scheduler)", err=True)


def _row(info: ScheduleInfo) -> list[str]:
    notes = [*([info.state] if info.state != "active" else []), *([short(info.error)] if info.error else [])]
    return [
        info.name, info.when, class_name(info.job_class), ago(info.next_run), ago(info.last_run), info.last_outcome or NOTHING,
        lasting(info.lag) if info.last_run else NOTHING, number(info.missed), ", ".join(notes),
    ]  # fmt: skip


@schedules.command
@click.argument("name")
@common()
def show(session: Session, name: str) -> None:
    """Show one schedule and how it fares."""
    info = session.run(lambda manager: manager.schedules.get(name))
    if session.json:
        output.document(shape(info))
        return
    facts = [
        ("schedule", info.name), ("state", info.state), ("when", info.when), ("job", info.job_class),
        ("queue", info.queue or "as the class says"), ("from", "code" if info.source == "code" else "added at run time"),
        ("next run", when(info.next_run)), ("last run", when(info.last_run)), ("lag", lasting(info.lag)),
        ("last job", str(info.last_job or NOTHING)), ("last outcome", info.last_outcome or NOTHING),
        ("last success", when(info.last_success)), ("fired", number(info.fired)), ("missed", number(info.missed)),
        ("misfire", f"{info.misfire}, after {lasting(info.grace)}"), ("jitter", lasting(info.jitter)),
        ("start", when(info.start)), ("until", when(info.until)), ("error", info.error or NOTHING),
    ]  # fmt: skip
    output.pairs(facts)


@schedules.command
@click.argument("name")
@click.argument("job_class", metavar="CLASS")
@click.argument("fields", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option("--cron", metavar="EXPRESSION", help="Five fields, or six with the second last, or @daily and the like.")
@click.option("--every", type=duration, metavar="DURATION", help="An interval: 90, 15m, 1h30m.")
@click.option("--timezone", metavar="ZONE", help="An IANA name; the expression is read in it.")
@click.option("--jitter", type=duration, metavar="DURATION", help="Each run is later by up to so much.")
@click.option("--misfire", type=click.Choice([p.value for p in Misfire]), help="What becomes of ticks that are late.")
@click.option("--grace", type=duration, metavar="DURATION", help="How late is late; a minute unless given.")
@click.option("--start", type=moment, metavar="TIME", help="No run before it (ISO 8601).")
@click.option("--until", type=moment, metavar="TIME", help="No run after it (ISO 8601).")
@click.option("--queue", help="Send its jobs to this queue.")
@click.option("--priority", type=click.Choice([p.name.lower() for p in Priority]), help="Within their queue.")
@click.option("--max-attempts", type=int, metavar="N", help="Try each this often in all.")
@click.option("--expires-in", type=duration, metavar="DURATION", help="One that has not started by then expires.")
@click.option("--tag", "tags", multiple=True, help="Tag them; repeat it.")
@click.option("--import", "modules", metavar="MODULE", multiple=True, help="Import this module; repeat it.")
@click.option("--json-payload", metavar="JSON", help="The fields as a JSON object; FIELD=VALUE overrides.")
@settings_options("security")
@common()
def add(
    session: Session,
    name: str,
    job_class: str,
    fields: tuple[str, ...],
    modules: tuple[str, ...],
    json_payload: str | None,
    **options: Any,
) -> None:
    """Add a schedule, or change the one of this name. Said again it changes nothing.

    CLASS and FIELD=VALUE are as of `rf-jobs dispatch`.
    """
    import_jobs(session, modules)
    job = build(find_class(job_class), fields, json_payload)
    given = {key: value for key, value in options.items() if value not in (None, ())}

    async def work(manager: QueueManager) -> tuple[bool, ScheduleInfo]:
        new = await manager.schedules.upsert(name, job, **given)
        return new, await manager.schedules.get(name)

    new, info = session.change(work)
    if session.json:
        output.document({"changed": new, **shape(info)})
        return
    state = "" if info.state == "active" else f"; it is {info.state}"
    click.echo(f"{name}: {'next run' if new else 'as it was; next run'} {when(info.next_run)}{state}")


def _each(session: Session, names: tuple[str, ...], act: Callable[[QueueManager, str], Any], word: str) -> None:
    """Do it to each, after all are known to be there."""

    async def work(manager: QueueManager) -> dict[str, Any]:
        for name in names:
            await manager.schedules.get(name)
        return {name: await act(manager, name) for name in names}

    done = session.change(work)
    if session.json:
        output.document({"schedules": [{"name": name, "changed": bool(new)} for name, new in done.items()]})
        return
    for name, new in done.items():
        click.echo(f"{name}: {word}" if new else f"{name}: was {word} already")


@schedules.command
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common()
def pause(session: Session, names: tuple[str, ...]) -> None:
    """Let schedules rest. What comes meanwhile is not made up for."""
    _each(session, names, lambda manager, name: manager.schedules.pause(name), "paused")


@schedules.command
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common()
def resume(session: Session, names: tuple[str, ...]) -> None:
    """Let schedules run again, from their next tick on."""
    _each(session, names, lambda manager, name: manager.schedules.resume(name), "resumed")


@schedules.command
@click.argument("name")
@click.option("--import", "modules", metavar="MODULE", multiple=True, help="Import this module; repeat it.")
@settings_options("security")
@common()
def trigger(session: Session, name: str, modules: tuple[str, ...]) -> None:
    """Have a schedule run now, out of turn, and print the job's id. Its ticks go on as they would."""
    import_jobs(session, modules)
    job_id = session.change(lambda manager: manager.schedules.trigger(name))
    if session.json:
        output.document({"name": name, "id": str(job_id)})
    else:
        click.echo(str(job_id))


@schedules.command
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@confirmation
@common()
def remove(session: Session, names: tuple[str, ...], yes: bool) -> None:
    """Remove schedules; jobs that they dispatched stay. One that the code of a living scheduler has is refused."""
    confirm(session, f"Remove {', '.join(names)}?", yes=yes)

    async def gone(manager: QueueManager, name: str) -> bool:
        await manager.schedules.remove(name)
        return True

    _each(session, names, gone, "removed")


def shape(info: ScheduleInfo) -> dict[str, Any]:
    """The JSON form of a schedule. Times are ISO 8601 in UTC, durations seconds."""
    return {
        "name": info.name,
        "state": info.state,
        "source": info.source,
        "cron": info.cron or None,
        "timezone": info.timezone or None,
        "every": info.every or None,
        "jitter": info.jitter,
        "misfire": info.misfire,
        "grace": info.grace,
        "start": time(info.start),
        "until": time(info.until),
        "class": info.job_class,
        "queue": info.queue or None,
        "next_run": time(info.next_run),
        "last_run": time(info.last_run),
        "last_tick": time(info.last_tick),
        "last_job": None if info.last_job is None else str(info.last_job),
        "last_success": time(info.last_success),
        "last_outcome": info.last_outcome or None,
        "lag": info.lag,
        "fired": info.fired,
        "missed": info.missed,
        "overlaps": info.overlaps,
        "error": info.error or None,
        "declared_at": time(info.declared_at),
    }
