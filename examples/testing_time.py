"""Tests against a real server, whose clock is moved."""

from datetime import timedelta

from rf_jobs import Job, JobContext, QueueManager
from rf_jobs.testing import Clock, drain


class Remind(Job, max_attempts=5, backoff=3600):
    who: str

    async def handle(self, ctx: JobContext) -> str:
        if ctx.attempt < 3:
            raise ConnectionError("nobody answers")
        return f"{self.who} was reminded at {ctx.started_at:%H:%M} on attempt {ctx.attempt}"


async def main(manager: QueueManager) -> None:
    with Clock(manager) as clock:
        reminder = await manager.dispatch(Remind(who="Ann")).delay(timedelta(days=7)).handle()
        clock.advance(timedelta(days=6))
        done = await drain(manager)
        print(f"after six days: {done.attempts} attempts, left: {done.left}")
        clock.advance(timedelta(days=1))
        done = await drain(manager)
        print(f"after seven: {done.retried} retried, left: {done.left}")
        done = await drain(manager, with_scheduled=True)  # goes on to each retry
        print(f"in the end: {done.completed} completed; {await reminder.result(5)}")


if __name__ == "__main__":
    from examples.here import run

    run(main)
