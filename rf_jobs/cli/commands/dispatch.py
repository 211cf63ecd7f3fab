"""``rf-jobs dispatch``: one job, from a shell."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from rf_jobs.cli import output
from rf_jobs.cli.commands.jobs import wait_and_tell
from rf_jobs.cli.exits import Exit
from rf_jobs.cli.importing import find_class, import_jobs
from rf_jobs.cli.options import common, duration, moment, settings_options
from rf_jobs.cli.session import Session
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.pending import Pending
from rf_jobs.model import codec
from rf_jobs.model.job import Job
from rf_jobs.model.jobclass import JobClass
from rf_jobs.words.errors import SerializationError
from rf_jobs.words.states import Priority


@click.command
@click.argument("job_class", metavar="CLASS")
@click.argument("fields", metavar="[FIELD=VALUE]...", nargs=-1)
@click.option(
    "--import",
    "modules",
    metavar="MODULE",
    multiple=True,
    help="Import this module; repeat it.  [also: imports in [jobs]]",
)
@click.option("--json-payload", metavar="JSON", help="The fields as a JSON object; FIELD=VALUE overrides.")
@click.option("--queue", help="Send it to this queue.")
@click.option("--delay", type=duration, metavar="DURATION", help="Run it no sooner than this from now: 90, 15m, 1h30m.")
@click.option("--at", type=moment, metavar="TIME", help="Run it no sooner than at this time (ISO 8601).")
@click.option("--priority", type=click.Choice([p.name.lower() for p in Priority]), help="Within its queue.")
@click.option("--max-attempts", type=int, metavar="N", help="Try it this often in all.")
@click.option("--id", "job_id", metavar="UUID", help="Give it this id; sent again it is not doubled.")
@click.option(
    "--expires-in", type=duration, metavar="DURATION", help="If it has not started by then, it ends as expired."
)
@click.option("--tag", "tags", multiple=True, help="Tag it; repeat it.")
@click.option("--wait", type=duration, metavar="DURATION", help="Wait so long for its end, and print its result.")
@settings_options("security")
@common()
def dispatch(
    session: Session,
    job_class: str,
    fields: tuple[str, ...],
    modules: tuple[str, ...],
    json_payload: str | None,
    wait: float | None,
    **options: Any,
) -> int:
    """Dispatch one job and print its id.

    CLASS is a job class by its full name (myapp.jobs:SendEmail) or by its own (SendEmail), where that is unambiguous.
    A VALUE is read as JSON where it is JSON (3, true, [1, 2], "3"), else as text; for a field of type str it is always
    the text as it stands.
    """
    import_jobs(session, modules)
    job = build(find_class(job_class), fields, json_payload)

    async def work(manager: QueueManager) -> int:
        job_id = str(await chosen(manager.dispatch(job), **options))
        if wait is not None:
            if not session.json:
                click.echo(job_id, err=True)
            return await wait_and_tell(manager, session, job_id, wait)
        if session.json:
            record = await manager.job(job_id)
            output.document({"id": job_id, "class": record.job_class, "queue": record.queue, "state": record.state})
        else:
            click.echo(job_id)
        return Exit.OK

    return session.change(work)


def build(entry: JobClass, fields: Sequence[str], json_payload: str | None) -> Job:
    """An instance of the class. Raises ``SerializationError`` or click's usage errors."""
    payload = {**_object(json_payload), **dict(_field(entry, text) for text in fields)}
    known = [field.name for field in dataclasses.fields(entry.type)]
    for name in payload:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
            raise SerializationError(f"{entry.short_name} has no field {name!r}; {hint}")
    try:
        data = msgspec.json.encode(payload)
    except UnicodeEncodeError as error:
        raise SerializationError(f"the fields of {entry.short_name} are no text that can be sent: {error}") from None
    job: Job = codec.decode_payload(entry, data, entry.version)
    return job


def _object(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise click.BadParameter(f"it is no JSON: {error}", param_hint="--json-payload") from None
    if not isinstance(value, dict):
        raise click.BadParameter('give a JSON object, such as \'{"to": "a@b.c"}\'', param_hint="--json-payload")
    return value


def _field(entry: JobClass, text: str) -> tuple[str, Any]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.BadParameter(f"{text!r} has no '='; give field=value", param_hint="FIELD=VALUE")
    return name, _value(entry, name, value)


def _value(entry: JobClass, name: str, text: str) -> Any:
    try:
        if typing.get_type_hints(entry.type).get(name) is str:
            return text
    except Exception:  # annotations that only the type checker can resolve: decoding will tell
        return text
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text


def chosen(
    pending: Pending[Any], *, queue: str | None, delay: float | None, at: datetime | None, priority: str | None,
    max_attempts: int | None, job_id: str | None, expires_in: float | None, tags: tuple[str, ...],
) -> Pending[Any]:  # fmt: skip
    """The dispatch with what the options say. Raises ``InvalidOption``."""
    if delay is not None and at is not None:
        pending.take()
        raise click.UsageError("--delay and --at exclude each other.")
    steps: list[tuple[Any, Callable[[Any], object]]] = [
        (queue, pending.on_queue),
        (delay, pending.delay),
        (at, pending.at),
        (priority, pending.priority),
        (max_attempts, pending.max_attempts),
        (job_id, pending.with_id),
        (expires_in, pending.expires_in),
    ]
    try:
        for value, step in steps:
            if value is not None:
                step(value)
        return pending.tags(*tags) if tags else pending
    except BaseException:
        pending.take()  # nothing is dispatched, on purpose: no warning
        raise
