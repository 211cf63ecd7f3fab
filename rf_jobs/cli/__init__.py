"""The command ``rf-jobs``. Importing this loads no command; each is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line on ``args`` (default: this process's arguments); answers with the exit code."""
    from rf_jobs.cli.app import app  # noqa: PLC0415 (importing rf_jobs.cli stays cheap)

    return app.run(args)
