"""Servers to test against: the embedded Valkey, or with ``RF_JOBS_TEST_SERVER=redis`` (or ``valkey``) the one on the PATH."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from rf_jobs.store.embedded import EmbeddedServer

KIND_VARIABLE = "RF_JOBS_TEST_SERVER"


def server_program() -> Path | None:
    """The program that the environment chose; None leaves it to the launcher."""
    kind = os.environ.get(KIND_VARIABLE, "embedded")
    if kind == "embedded":
        return None
    found = shutil.which(f"{kind}-server")
    if found is None:
        raise RuntimeError(
            f"{KIND_VARIABLE}={kind}, but {kind}-server is not on the PATH; run scripts/setup-test-tools"
        )
    return Path(found)


def ephemeral_server(*, port: int | None = None, extra_args: Sequence[str] = ()) -> EmbeddedServer:
    """A server that keeps nothing and ends with the test process, however that ends."""
    return EmbeddedServer.ephemeral(port=port, extra_args=extra_args, binary=server_program())
