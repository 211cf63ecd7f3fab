"""``rf-jobs demo``: see it work."""

from __future__ import annotations

import click

from rf_jobs.cli.options import common, duration
from rf_jobs.cli.session import Session


@click.command
@click.option("--seconds", type=duration, metavar="DURATION", help="End by itself after so long.  [default: at Ctrl-C]")
@common(server=False)
def demo(session: Session, seconds: float | None) -> int:
    """Run a small shop on an embedded server: e-mails, thumbnails, a flaky webhook, a dead letter, a killed worker.

    It has a folder of its own (.rf-jobs/demo), takes no settings, and disturbs no other server. Ctrl-C ends the load and
    shows the summary; a second one ends it at once. Exits with 0 only if nothing was lost and every job on show reached the state that it should.
    """
    from rf_jobs.demo import DemoOptions, run_demo  # noqa: PLC0415 (it loads what only the demo needs)

    return run_demo(DemoOptions(seconds=seconds, json=session.json))
