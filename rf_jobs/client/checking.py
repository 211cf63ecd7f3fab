"""``check``: could this process's job classes run what waits in a store, and are they themselves in order? Reads only.

Made for the moment before a deploy: the new code here, the live queues there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rf_jobs.client.judging import UNREAD, Judge
from rf_jobs.client.manager import QueueManager
from rf_jobs.client.promises import promised
from rf_jobs.core import census
from rf_jobs.core.census import Group
from rf_jobs.core.records import WorkerInfo
from rf_jobs.model.fields import faults
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.words.states import OPEN, State

OURS = "rf_jobs"
"""The package whose own job classes, such as the one that calls a batch's functions, are nobody's to mend."""


@dataclass(frozen=True)
class Fault:
    """Something that is not in order with the code, or with who would run it."""

    where: str
    """A class, or a queue."""
    what: str
    todo: str
    grave: bool = True
    """Whether something can't run; else it is a warning."""


@dataclass
class Report:
    """What was found."""

    classes: int
    groups: list[Group]
    faults: list[Fault] = field(default_factory=list)
    seen: int = 0
    standing: int = 0

    @property
    def unrunnable(self) -> list[Group]:
        """Jobs that this code could not run."""
        return [group for group in self.groups if group.verdict and not group.verdict.startswith(UNREAD)]

    @property
    def ok(self) -> bool:
        """Whether everything could run."""
        return not self.unrunnable and not any(fault.grave for fault in self.faults)

    @property
    def spotless(self) -> bool:
        """Whether there is not even a warning."""
        return not self.faults and not any(group.verdict for group in self.groups)


def check_code(registry: Registry, examples: Mapping[str, Any] = MappingProxyType({})) -> list[Fault]:
    """Faults of the registered classes that show without running a job. ``examples``: jobs by the names of their classes,
    whose option methods are asked."""
    return [
        Fault(entry.name, fault, "mend it before a job of it is dispatched")
        for entry in _own(registry)
        for fault in faults(entry, examples.get(entry.name))
    ]


def _own(registry: Registry) -> list[JobClass]:
    """The program's own classes."""
    entries = [registry.get(name) for name in registry.names()]
    return [entry for entry in entries if entry.type.__module__.partition(".")[0] != OURS]


async def check(
    manager: QueueManager, registry: Registry, *, queues: Collection[str] = (), dead: bool = False, everything: bool = False,
    workers: bool = True, seen: Callable[[int, int], None] | None = None,
) -> Report:  # fmt: skip
    """Compare the registered classes with the jobs of these queues (all, unless some are named): those that are open, with
    ``dead`` dead letters too, a sample of each queue and state, or ``everything``. ``workers``: whether live workers must
    serve the queues. Jobs of schedules and callbacks of batches that are not over are looked at too. Raises ``BackendError``."""
    names = sorted(queues) or await manager.inspector.queue_names()
    states = (*OPEN, State.DEAD) if dead else OPEN
    judge = Judge(manager.protection, registry)
    sample = None if everything else census.SAMPLE
    found = await census.take(manager.store, names, states, judge.page, sample=sample, seen=seen)
    ahead = [group for group in await promised(manager, judge, sample=sample) if not queues or group.queue in queues]
    report = Report(
        len(_own(registry)), found.groups + ahead, check_code(registry, judge.examples), found.seen, found.standing
    )
    if workers:
        alive = [worker for worker in await manager.workers() if worker.state != "stale"]
        report.faults += _unserved(report.groups, registry, manager.settings.jobs.default_queue, alive, queues)
    return report


def _unserved(
    groups: Sequence[Group], registry: Registry, default_queue: str, alive: Sequence[WorkerInfo], only: Collection[str]
) -> list[Fault]:
    """Queues that no live worker serves: where jobs wait, and where classes send theirs."""
    if not alive:
        return [
            Fault(
                "workers", "no worker is alive", "start one, or say --no-workers to leave them out", grave=bool(groups)
            )
        ]
    served = {queue for worker in alive for queue in worker.queues}
    found = []
    for queue in sorted({group.queue for group in groups if group.queue} - served):
        jobs = sum(group.jobs for group in groups if group.queue == queue)
        todo = "add it to a worker's --queues, or move the jobs"
        found.append(
            Fault(f"queue {queue}", f"{jobs} jobs stand there or will come there, and no live worker serves it", todo)
        )
    waiting = {group.queue for group in groups}
    for entry in _own(registry):
        queue = entry.options.queue or default_queue
        if queue not in served and queue not in waiting and (not only or queue in only):
            what = f"its queue {queue!r} is served by no live worker"
            found.append(
                Fault(entry.name, what, "add the queue to a worker's --queues before jobs are dispatched", grave=False)
            )
    return found
