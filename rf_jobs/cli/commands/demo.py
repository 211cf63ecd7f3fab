"""``rf-jobs demo``: see it work."""

from __future__ import annotations

import click

from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session


@click.command
@common()
def demo(session: Session) -> int:
    """Run a small shop on an embedded server: e-mails, thumbnails, a flaky webhook, a dead letter, a killed worker."""
    from rf_jobs.demo import DemoOptions, run_demo  # noqa: PLC0415 (it loads what only the demo needs)

    return run_demo(DemoOptions())
