"""What a dead worker process leaves: its jobs are settled at once, and a living one is given the news to announce."""

from __future__ import annotations

import logging
from collections import deque

from rf_jobs.core import transitions
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Ending, Retention
from rf_jobs.words.errors import RfJobsError
from rf_jobs.worker.leases import STARTED, Held
from rf_jobs.worker.member import Member
from rf_jobs.worker.orders import Crash, Order

log = logging.getLogger("rf_jobs.supervisor")
CRASHES_PER_ORDER = 100
OPERATIONS_PER_ORDER = 100


class Estate:
    """Settles in the store, from the lease table, and keeps what no child has announced yet: the supervisor has no telemetry
    of its own. What is untold when the last child has ended is in the ledger alone."""

    def __init__(self, store: SyncStore, retention: Retention) -> None:
        self._store = store
        self._retention = retention
        self._untold: list[Crash] = []
        self._operations: deque[tuple[str, float, str]] = deque(maxlen=OPERATIONS_PER_ORDER)
        """Round trips that no child has measured yet."""
        store.observer = lambda *told: self._operations.append(told)

    def settle(self, member: Member, held: list[Held], cause: str) -> None:
        """Give back what the dead worker held: suspects count a crash, the others go back as if never fetched."""
        worker = member.pulse.worker
        if not worker:
            return
        started = {h.id for h in held if h.state == STARTED}
        suspects = member.guilty & started or started
        if member.guilty:
            cause = "it ran past its timeout and could not be stopped"
        error = transitions.crash_report(worker, f"its worker process died: {cause}")
        crashes = member.place.settings.max_crashes
        endings = [
            Ending("crash", h.queue, h.id, h.token, crashes, cause, error)
            if h.id in suspects
            else Ending("release", h.queue, h.id, h.token)
            for h in held
        ]
        try:
            if endings:
                verdicts = self._store.run(self._store.commands.finish(endings, self._retention))
                self._untold += [
                    Crash(e.queue, e.id, e.token)
                    for e, done in zip(endings, verdicts, strict=True)
                    if done and e.verb == "crash"
                ]
            self._store.run(self._store.commands.bye(worker))
        except RfJobsError as problem:
            log.warning(
                "could not hand back the jobs of process %d: %s; their leases will run out", member.pid, problem
            )

    def beat(self, member: Member, *, quiet: bool) -> None:
        """A heartbeat of a living one, which is told how it went, and the news."""
        beaten = member.beater.beat()
        crashes, rest = self._untold[:CRASHES_PER_ORDER], self._untold[CRASHES_PER_ORDER:]
        order = Order(
            beaten, crashes, list(self._operations), member.beater.unextended, retire=member.retiring, quiet=quiet
        )
        if member.tell(order):
            self._untold = rest
            self._operations.clear()
        else:
            log.warning("worker process %d does not read its orders", member.pid)
