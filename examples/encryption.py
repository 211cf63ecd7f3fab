"""An encrypted field, an encrypted class, and envelopes that are signed."""

import base64
import secrets
from dataclasses import replace

from examples.here import run
from rf_jobs import Encrypted, Job, JobContext, QueueManager, SecuritySettings, WorkerPool


def fresh_key(key_id: str) -> str:
    """What ``rf-jobs keys new`` prints. Keep it with your other secrets."""
    return f"{key_id}:{base64.b64encode(secrets.token_bytes(32)).decode()}"


class Remind(Job):
    day: str
    phone: Encrypted[str]

    async def handle(self, ctx: JobContext) -> str:
        return f"called a number of {len(self.phone)} digits"


class Diagnose(Job, encrypt=True):
    symptoms: str

    async def handle(self, ctx: JobContext) -> str:
        return f"nothing serious: {self.symptoms}"


async def main(manager: QueueManager) -> None:
    security = SecuritySettings(
        encryption_keys=(fresh_key("2026-b"), fresh_key("2026-a")),  # the first seals, both open
        signing_keys=(fresh_key("s1"),),
        require_signatures=True,
    )
    async with QueueManager(replace(manager.settings, security=security)) as safe, WorkerPool(manager=safe):
        remind, diagnose = await safe.dispatch_many([Remind(day="Monday", phone="555123"), Diagnose(symptoms="cough")])
        print(await safe.wait(remind, 10), "and", await safe.wait(diagnose, 10))
        shown = (await safe.job(remind)).payload
    print(f"the record shows {shown}")
    assert shown == {"day": "Monday", "phone": "***"}
    assert (await manager.job(diagnose)).result == "***", "whoever has no key sees no result"


if __name__ == "__main__":
    run(main)
