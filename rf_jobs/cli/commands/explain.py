"""``rf-jobs explain``: why is this job not running?"""

from __future__ import annotations

import click

from rf_jobs.cli import output, shapes
from rf_jobs.cli.options import common
from rf_jobs.cli.session import Session
from rf_jobs.cli.wording import class_name
from rf_jobs.words.printing import clean


@click.command
@click.argument("job_id", metavar="ID")
@common()
def explain(session: Session, job_id: str) -> None:
    """Say why a job is not running (yet, or any more): true reasons, the most important first."""
    found = session.run(lambda manager: manager.explain(job_id))
    if session.json:
        output.document(
            {
                "id": str(found.id),
                "class": found.job_class,
                "queue": found.queue,
                "state": found.state,
                "reasons": [
                    {
                        "code": reason.code,
                        "message": reason.message,
                        "until": shapes.time(reason.until),
                        "blockers": list(reason.blockers),
                    }
                    for reason in found.reasons
                ],
            }
        )
        return
    click.echo(f"{class_name(found.job_class)} {found.id} in {found.queue} is {found.state}:")
    for reason in found.reasons:
        click.echo(f"- {clean(reason.message)}")
    if not found.reasons:
        click.echo("- nothing keeps it from running")
