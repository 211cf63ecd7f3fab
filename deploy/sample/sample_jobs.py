# ruff: noqa: INP001 - imported by its own name, from a folder that is mounted into the container
"""A job to see docker-compose work: ``docker compose exec worker rf-jobs dispatch Hello``."""

from __future__ import annotations

from rf_jobs import Job, JobContext


class Hello(Job, queue="default", name="Hello"):
    """Says hello in the worker's log."""

    person: str = "world"

    async def handle(self, ctx: JobContext) -> None:
        ctx.log(f"hello, {self.person}")
