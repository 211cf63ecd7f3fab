"""A module with schedules in its code, for processes that import it."""

from __future__ import annotations

from rf_jobs import Job, JobContext, Scheduler

QUEUE = "ticks"
STEPS = {"fast-100": 100, "fast-150": 150, "fast-250": 250}
"""Schedules and their intervals in ms."""


class Ticking(Job, queue=QUEUE):
    name: str

    async def handle(self, ctx: JobContext) -> str:
        return self.name


scheduler = Scheduler(timezone="Europe/Berlin")
for name, step in STEPS.items():
    scheduler.every(step / 1000).job(Ticking(name=name)).name(name).misfire("all")
scheduler.schedule("30 2 * * *").job(Ticking(name="nightly")).name("nightly").jitter(60)
