"""``rf-jobs keys``: keys for encryption and signing."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

import click

from rf_jobs.cli import output
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session
from rf_jobs.words.secret_keys import keys_of, new_key


@click.group
def keys() -> None:
    """Make keys for encryption and signing, and list those that are configured. Needs no server."""


@keys.command("new")
@click.option("--id", "key_id", help="What to call it.  [default: today's date and four digits]")
@common()
def new(session: Session, key_id: str | None) -> None:
    """Print a fresh key. It is kept nowhere: put it where the others are, such as encryption_keys in [jobs.security].

    To change keys, put the new one first and leave the old ones behind it until no job is left that was sealed with them.
    """
    key = new_key(key_id or f"{datetime.now(UTC):%Y-%m-%d}-{secrets.token_hex(2)}")
    if session.json:
        output.document({"id": key.id, "name": key.name, "key": key.text()})
    else:
        click.echo(key.text())


@keys.command("list")
@common()
def listing(session: Session) -> None:
    """List the configured keys by id and fingerprint, without their secrets. The first of each kind is in use."""
    security = session.settings.security
    found = {
        "encryption": keys_of(security.encryption_keys, security.encryption_keys_file),
        "signing": keys_of(security.signing_keys, security.signing_keys_file),
    }
    if session.json:
        output.document({kind: [key.name for key in each] for kind, each in found.items()})
        return
    uses = {"encryption": ("seals and opens", "opens"), "signing": ("signs and checks", "checks")}
    rows = [[kind, key.name, uses[kind][at > 0]] for kind, each in found.items() for at, key in enumerate(each)]
    if not rows:
        click.echo("no keys are configured; make one: rf-jobs keys new")
        return
    output.table(["kind", "key", "use"], rows)
