"""``check``: could this process's job classes run what waits in a store, and are they themselves in order? Reads only.

Made for the moment before a deploy: the new code here, the live queues there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from rf_jobs.client.manager import QueueManager
from rf_jobs.core import census
from rf_jobs.core.census import Found, Group
from rf_jobs.core.records import WorkerInfo, clip
from rf_jobs.model import codec, envelope
from rf_jobs.model.fields import faults
from rf_jobs.model.jobclass import JobClass, Registry
from rf_jobs.words.errors import ForgedEnvelope, MissingKey, SerializationError
from rf_jobs.words.states import OPEN, State

UNREAD = "not read: "
"""A verdict that begins so says that nobody knows: what would be needed is not here."""


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


def check_code(registry: Registry) -> list[Fault]:
    """Faults of the registered classes that show without running a job."""
    return [
        Fault(name, fault, "mend it before a job of it is dispatched")
        for name in registry.names()
        for fault in faults(registry.get(name))
    ]


async def check(
    manager: QueueManager, registry: Registry, *, queues: Collection[str] = (), dead: bool = False, everything: bool = False,
    workers: bool = True, seen: Callable[[int, int], None] | None = None,
) -> Report:  # fmt: skip
    """Compare the registered classes with the jobs of these queues (all, unless some are named): those that are open, with
    ``dead`` dead letters too, a sample of each queue and state, or ``everything``. ``workers``: whether live workers must
    serve the queues. Raises ``BackendError``."""
    names = sorted(queues) or await manager.inspector.queue_names()
    states = (*OPEN, State.DEAD) if dead else OPEN
    judge = _Judge(manager, registry)
    sample = None if everything else census.SAMPLE
    found = await census.take(manager.store, names, states, judge.page, sample=sample, seen=seen)
    report = Report(len(registry.names()), found.groups, check_code(registry), found.seen, found.standing)
    if workers:
        alive = [worker for worker in await manager.workers() if worker.state != "stale"]
        report.faults += _unserved(report.groups, registry, manager.settings.jobs.default_queue, alive, queues)
    return report


class _Judge:
    """Tries to open jobs as a worker with this code would."""

    def __init__(self, manager: QueueManager, registry: Registry) -> None:
        self._protection = manager.protection
        self._registry = registry

    async def page(self, page: Sequence[Found]) -> list[str]:
        """A verdict for each."""
        return [self._one(job) for job in page]

    def _one(self, job: Found) -> str:
        if job.letter is None:
            newer = envelope.is_newer(job.data)
            return "its envelope is of a newer version than this code reads" if newer else "its envelope is damaged"
        letter = job.letter
        entry = self._registry.find(letter.job)
        if entry is None:
            return "no class has, or had, this name"
        if letter.ver > entry.version:
            return f"written by version {letter.ver} of the class, this code has {entry.version}"
        return self._payload(job, entry)

    def _payload(self, job: Found, entry: JobClass) -> str:
        try:
            letter = self._protection.read(job.id, job.data)
            if letter.off is not None:
                return ""  # it lies elsewhere; what its class is, is known
            self._protection.unseal(letter, entry)
            codec.decode_payload(entry, letter.args, letter.ver)
        except (MissingKey, ForgedEnvelope) as error:
            return UNREAD + clip(error)
        except SerializationError as error:
            return clip(error)
        return ""


def _unserved(
    groups: Sequence[Group], registry: Registry, default_queue: str, alive: Sequence[WorkerInfo], only: Collection[str]
) -> list[Fault]:
    """Queues that no live worker serves: where jobs wait, and where classes send theirs."""
    if not alive:
        return [Fault("workers", "no worker is alive", "start one, or say --no-workers to leave them out", grave=bool(groups))]
    served = {queue for worker in alive for queue in worker.queues}
    found = []
    for queue in sorted({group.queue for group in groups} - served):
        jobs = sum(group.jobs for group in groups if group.queue == queue)
        todo = "add it to a worker's --queues, or move the jobs"
        found.append(Fault(f"queue {queue}", f"{jobs} jobs stand there, and no live worker serves it", todo))
    waiting = {group.queue for group in groups}
    for name in registry.names():
        queue = registry.get(name).options.queue or default_queue
        if queue not in served and queue not in waiting and (not only or queue in only):
            what = f"its queue {queue!r} is served by no live worker"
            found.append(Fault(name, what, "add the queue to a worker's --queues before jobs are dispatched", grave=False))
    return found
