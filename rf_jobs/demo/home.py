"""Where the demo lives: a folder, a server and settings of its own, so that it meets nobody else's jobs."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rf_jobs.store.embedded import EmbeddedServer
from rf_jobs.store.embedded_process import make_private, write_private
from rf_jobs.words.config import Settings, load_settings
from rf_jobs.words.errors import BackendError
from rf_jobs.words.ids import new_token

PLACE = Path(".rf-jobs") / "demo"
LEASE_SECONDS = 3
KEPT = 1_000_000
ENDING_SECONDS = 5.0
"""How long the server of a demo that was killed may take to end."""
TRACING = ("RF_JOBS_TELEMETRY_OTLP_ENDPOINT", "RF_JOBS_TELEMETRY_SAMPLE_RATIO")
"""The settings of the surroundings that count here too: where to see the demo's traces."""


@dataclass(frozen=True)
class Home:
    """What is in the folder."""

    url: str
    config: Path
    """The settings of all the demo's processes."""
    logs: Path
    shop: Path
    """The jobs' files; empty at the start."""
    settings: Settings


@contextmanager
def home() -> Generator[Home]:
    """The demo's folder in the working directory, with its server for as long as this lasts. Each run has a namespace of
    its own: a worker of an earlier one that is not gone yet takes none of its jobs. Raises ``BackendError`` where a demo
    runs there already."""
    folder = make_private(PLACE.absolute())
    with _server(folder / "server") as server:
        shutil.rmtree(folder / "shop", ignore_errors=True)
        for name in ("logs", "shop"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        config = folder / "rf-jobs.toml"
        write_private(config, _toml(server.url, f"demo-{new_token()}"))
        settings = load_settings(config, environ=tracing()).settings
        yield Home(server.url, config, folder / "logs", folder / "shop", settings)


def tracing() -> dict[str, str]:
    """The variables of ``TRACING`` that are set."""
    return {name: os.environ[name] for name in TRACING if name in os.environ}


def _server(directory: Path) -> EmbeddedServer:
    """One that this run has started."""
    give_up = time.monotonic() + ENDING_SECONDS
    while not (server := EmbeddedServer.start(directory, die_with_parent=True)).started:
        if time.monotonic() > give_up:
            raise BackendError(
                f"a demo runs in {directory.parent} already (its server is process {server.pid}); end it, or run this one"
                " in another folder"
            )
        time.sleep(0.1)
    return server


def _toml(url: str, namespace: str) -> str:
    return f"""# Written anew by each `rf-jobs demo`.
[jobs]
redis_url = {json.dumps(url)}
namespace = {json.dumps(namespace)}
completed_keep = {KEPT}

[jobs.worker]
max_concurrent_jobs = 20
lease_seconds = {LEASE_SECONDS}
http_port = 0

[jobs.telemetry]
flush_seconds = 0.5
"""
