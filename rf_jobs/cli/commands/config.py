"""``rf-jobs config``: the effective settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click
import msgspec

from rf_jobs.cli import output
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session
from rf_jobs.words.config import Entry, mask_url
from rf_jobs.words.config_keys import KEYS, did_you_mean
from rf_jobs.words.config_settings import WorkerSet
from rf_jobs.words.errors import ConfigError
from rf_jobs.words.secret_keys import mask_keys


@click.command
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--set", "only_set", is_flag=True, help="Only what differs in origin from the defaults.")
@common()
def config(session: Session, keys: tuple[str, ...], only_set: bool) -> None:
    """Show the effective settings and where each comes from; secrets are masked.

    KEY is a setting (jobs.redis_url) or a table (jobs.worker). This needs no server.
    """
    loaded = session.loaded
    chosen = [entry for path, entry in loaded.entries.items() if not keys or any(_belongs(path, key) for key in keys)]
    for key in keys:
        if not any(_belongs(path, key) for path in KEYS):
            raise ConfigError(f"{key!r} is no setting and no table of settings; {did_you_mean(key, KEYS)}")
    if only_set:
        chosen = [entry for entry in chosen if entry.origin.kind != "default"]
    if session.json:
        file = str(loaded.path) if loaded.path else None
        output.document({"file": file, "settings": {entry.key.path: _shape(entry) for entry in chosen}})
        return
    click.echo(f"file: {loaded.path or 'none was found'}")
    output.table(["setting", "value", "origin"], [[e.key.path, e.shown, str(e.origin)] for e in chosen])


def _belongs(path: str, key: str) -> bool:
    return path == key or path.startswith(f"{key}.")


def _shape(entry: Entry) -> dict[str, Any]:
    origin = entry.origin
    return {
        "value": mask_keys(entry.value) if entry.key.is_secret else _masked(entry.value),
        "origin": origin.kind,
        "from": origin.name or None,
        "variable": entry.key.variable,
    }


def _masked(value: object) -> object:
    if isinstance(value, str):
        return mask_url(value)
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    if isinstance(value, WorkerSet):
        return msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        return {str(name): _masked(item) for name, item in value.items()}
    return value
