"""The process that answers on a supervisor's port, for all its children: ``python -m rf_jobs.cli.page LISTENER-FD ROLL-FD``.

It starts with the supervisor and ends when that closes the pipe, or is gone. It may be started anew at any time: then the
counts of children that have ended before are missing from its sums.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import sys
import time

import msgspec

from rf_jobs.telemetry import logs, names
from rf_jobs.telemetry.exposition import Reading
from rf_jobs.telemetry.gathering import Gathering, Source
from rf_jobs.telemetry.probes import Probes
from rf_jobs.worker.commission import SIGNALS
from rf_jobs.worker.roll import PageOrder, Roll

log = logging.getLogger("rf_jobs.supervisor")
SILENT_SECONDS = 60.0
"""A supervisor that says nothing for so long is not alive. While its server does not answer it may wait for a while."""


class Front:
    """What is known of the supervisor, and answers to probes by it."""

    def __init__(self, order: PageOrder) -> None:
        self._roll: Roll | None = None
        self._heard = time.monotonic()
        self._gathering = Gathering(order.folder, order.namespace) if order.metrics else None

    def hear(self, roll: Roll) -> None:
        """The supervisor's last word."""
        self._roll, self._heard = roll, time.monotonic()

    def dead(self) -> str:
        """Why the supervisor is not alive; '' while it is."""
        silent = time.monotonic() - self._heard
        return f"the supervisor has been silent for {silent:.0f} s" if silent > SILENT_SECONDS else ""

    def stalled(self) -> str:
        """Why not every process makes progress; '' while all do."""
        if self._roll is None:
            return "the supervisor is starting"
        return self.dead() or "\n".join(self._roll.troubles)

    async def metrics(self, accept: str) -> tuple[bytes, str]:
        """All processes' metrics as one page."""
        if self._gathering is None:
            raise RuntimeError("metrics are off")  # the page is not served then
        roll = self._roll or Roll([], [], 0, {})
        sources = [Source(child.readings, child.place, child.serving, child.slots) for child in roll.children]
        return await self._gathering.page(sources, _own(roll), accept)


def _own(roll: Roll) -> list[Reading]:
    ready = roll.wanted - len(roll.troubles)
    states = {"wanted": roll.wanted, "alive": len(roll.children), "ready": ready}
    return [
        *(Reading(names.SUPERVISOR_PROCESSES, (state,), number) for state, number in states.items()),
        *(Reading(names.SUPERVISOR_PROCESS_ENDS, (why,), number) for why, number in roll.ends.items()),
    ]


async def _main(listener: socket.socket, roll: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=roll)
    line = await reader.readline()
    if not line:
        return
    order = msgspec.json.decode(line, type=PageOrder)
    logs.set_up(as_json=order.as_json)
    front = Front(order)
    probes = Probes(front.stalled, front.metrics if order.metrics else None, front.dead)
    await probes.serve(listener)
    while line := await reader.readline():
        front.hear(msgspec.json.decode(line, type=Roll))
    await probes.aclose()
    writer.close()
    shutil.rmtree(order.folder, ignore_errors=True)


def main() -> None:
    """Answer until the supervisor is gone."""
    for number in SIGNALS:  # it ends when its supervisor has, after the last child
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    asyncio.run(_main(socket.socket(fileno=int(sys.argv[1])), socket.socket(fileno=int(sys.argv[2]))))


if __name__ == "__main__":
    main()
