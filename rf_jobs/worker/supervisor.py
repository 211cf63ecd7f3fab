"""The supervisor: forks worker processes, keeps their leases alive, and settles the estate of those that die.

It runs no event loop and no thread, so that forking is safe, and it renews leases from outside: a child that is busy in
C code, or frozen, loses nothing as long as it lives and its jobs are inside their timeout and grace. When a child dies
its lease table tells which jobs were running (they count a crash) and which were merely held (they are handed back).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import select
import signal
import socket
from collections import deque
from typing import Any

from rf_jobs.client.manager import retention_of
from rf_jobs.core import transitions
from rf_jobs.store.redis import SyncStore
from rf_jobs.store.shapes import Ending
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.timing import mono
from rf_jobs.worker.child import STOP_SIGNALS, Attach, run_child
from rf_jobs.worker.config import QueueOrder, WorkerConfig
from rf_jobs.worker.leases import STARTED, STUCK, Held, LeaseTable
from rf_jobs.worker.orders import Crash, Order, OrderPipe
from rf_jobs.worker.pool import table_capacity
from rf_jobs.worker.upkeep import BEAT_SECONDS, Beater, worker_facts

log = logging.getLogger("rf_jobs.supervisor")
TICK_SECONDS = 0.25
KILL_MARGIN_SECONDS = 2.0
CRASHES_PER_ORDER = 100
OPERATIONS_PER_ORDER = 100
RESPAWN_CAP_SECONDS = 30.0
HEALTHY_AFTER_SECONDS = 10.0


class Member:
    """One child: its process, its lease table, the pipe to it, its heartbeats."""

    def __init__(self, number: int, table: LeaseTable) -> None:
        self.number = number
        self.table = table
        self.pid = 0
        self.pipe: OrderPipe | None = None
        self.beater: Beater | None = None
        self.started = 0.0
        self.beaten = 0.0
        self.next_beat = 0.0
        self.start_at = 0.0
        self.quick_deaths = 0
        self.retiring = False
        """Whether it was ordered to end when its jobs have."""
        self.signals = 0
        """How many it was sent."""
        self.leaving = 0.0
        """Since when nothing but itself keeps it from ending (monotonic): 0 while it serves, or has jobs that may end."""
        self.guilty: set[str] = set()
        """Jobs for whose sake it was killed."""

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self.pid != 0


class Supervisor:
    """``run`` forks ``processes`` children and returns when all have ended after SIGTERM or SIGINT; the second signal
    cuts running jobs off (they are handed back), the third kills. ``attach`` is entered in each child around its pool:
    the place to wire telemetry. Call it from a process without threads and without a running event loop."""

    def __init__(self, config: WorkerConfig, settings: Settings, *, attach: Attach | None = None) -> None:
        self._config = config
        self._settings = settings
        self._attach = attach
        jobs = settings.jobs
        self._queues = QueueOrder(config.settings.queues, jobs.default_queue).names
        self._store = SyncStore(jobs.redis_url, jobs.namespace, allow_eviction=settings.security.allow_evicting_server)
        self._retention = retention_of(jobs)
        self._members = [self._place(number) for number in range(config.settings.processes)]
        self._retiring: list[Member] = []
        """Those whose places others have taken."""
        self._untold: list[Crash] = []
        """Crashes that no child has announced yet: the supervisor has no telemetry of its own."""
        self._operations: deque[tuple[str, float, str]] = deque(maxlen=OPERATIONS_PER_ORDER)
        """Round trips that no child has measured yet."""
        self._store.observer = lambda *told: self._operations.append(told)
        self._signals = 0
        self._wakeup = socket.socketpair()

    def run(self) -> int:
        """Supervise until told to stop; answers with the exit code. Raises ``BackendError`` where the server is not fit
        at the start."""
        self._store.run(self._store.commands.ping())
        for end in self._wakeup:
            end.setblocking(False)
        previous = {s: signal.signal(s, self._on_signal) for s in STOP_SIGNALS}
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        old_fd = signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        gc.collect()
        gc.freeze()  # what is shared with the children stays shared: no collection writes to it
        try:
            while not (self._signals and not any(m.alive for m in self._all)):
                self._round()
                self._sleep()
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._store.close()
        return 0

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        self._pass_on()

    def _pass_on(self) -> None:
        """Each child gets each signal once, also the one that comes between two lines of ours."""
        for member in self._all:
            while member.alive and member.signals < self._signals:
                member.signals += 1
                os.kill(member.pid, signal.SIGTERM if member.signals < 3 else signal.SIGKILL)
                member.leaving = member.leaving or mono()

    def _sleep(self) -> None:
        ready, _, _ = select.select([self._wakeup[0]], [], [], TICK_SECONDS)
        if ready:
            with contextlib.suppress(BlockingIOError):
                self._wakeup[0].recv(4096)

    def _round(self) -> None:
        now = mono()
        self._pass_on()
        for member in self._all:
            if member.alive:
                self._reap(member)
            if member.alive:
                self._beat(member, now)
                self._enforce(member, now)
        for member in self._members:
            if not member.alive and not self._signals and now >= member.start_at and not self._port_is_taken(member):
                self._spawn(member)

    @property
    def _all(self) -> list[Member]:
        return [*self._members, *self._retiring]

    def _place(self, number: int) -> Member:
        return Member(number, LeaseTable(table_capacity(self._config), self._queues, shared=True))

    # --- life and death ------------------------------------------------------------------------------------------

    def _spawn(self, member: Member) -> None:
        member.table.clear()
        ours, theirs = socket.socketpair()
        config = self._config
        if config.settings.http_port and config.settings.processes > 1:
            config = config.http(config.settings.http_port + member.number, config.settings.http_host)
        parent = os.getpid()
        unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                ours.close()
                for other in self._all:
                    if other.pipe is not None:
                        other.pipe.close()
                code = run_child(config, self._settings, member.table, theirs, self._attach, parent)
            except BaseException:
                log.exception("the worker process failed")
            finally:
                logging.shutdown()
                os._exit(code)
        theirs.close()
        member.pid, member.pipe, member.started = pid, OrderPipe(ours), mono()
        member.leaving, member.guilty, member.next_beat = 0.0, set(), 0.0
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        settings = self._config.settings
        member.beater = Beater(
            self._store,
            member.table,
            lease=settings.lease_seconds,
            grace=settings.grace_seconds,
            facts=worker_facts(self._queues, pid),
        )
        log.info("started worker process %d", pid)

    def _reap(self, member: Member) -> None:
        pid, status = os.waitpid(member.pid, os.WNOHANG)
        if pid == 0:
            return
        lived = mono() - member.started
        code = os.waitstatus_to_exitcode(status)
        member.pid = 0
        if member.pipe is not None:
            member.pipe.close()
            member.pipe = None
        held = member.table.held()
        if code != 0 or held:
            cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            log.error("worker process %d died (%s) holding %d jobs", pid, cause, len(held))
            self._settle(member, held, cause)
        if member in self._retiring:
            self._retiring.remove(member)
            return
        member.quick_deaths = 0 if lived > HEALTHY_AFTER_SECONDS or code == 0 else member.quick_deaths + 1
        pause = min(RESPAWN_CAP_SECONDS, 0.5 * 2 ** (member.quick_deaths - 1)) if member.quick_deaths else 0.0
        member.start_at = mono() + pause

    def _settle(self, member: Member, held: list[Held], cause: str) -> None:
        """Give back what the dead worker held: suspects count a crash, the others go back as if never fetched."""
        worker = member.table.pulse().worker
        started = {h.id for h in held if h.state == STARTED}
        suspects = member.guilty & started or started
        if member.guilty:
            cause = "it ran past its timeout and could not be stopped"
        error = transitions.crash_report(worker, f"its worker process died: {cause}")
        crashes = self._config.settings.max_crashes
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
                "could not hand back the jobs of process %d: %s; their leases will run out", member.number, problem
            )

    # --- heartbeats and limits -----------------------------------------------------------------------------------

    def _beat(self, member: Member, now: float) -> None:
        if member.beater is not None and member.beater.pause <= BEAT_SECONDS:
            member.next_beat = min(member.next_beat, member.beaten + BEAT_SECONDS)
        if now < member.next_beat or member.beater is None or not member.table.pulse().worker:
            return
        member.beaten, member.next_beat = now, now + member.beater.pause
        beaten = member.beater.beat()
        crashes, rest = self._untold[:CRASHES_PER_ORDER], self._untold[CRASHES_PER_ORDER:]
        order = Order(beaten, crashes, list(self._operations), member.beater.unextended, member.retiring)
        if self._tell(member, order):
            self._untold = rest
            self._operations.clear()

    def _tell(self, member: Member, order: Order) -> bool:
        if member.pipe is not None and member.pipe.send(order):
            return True
        log.warning("worker process %d does not read its orders", member.pid)
        return False

    def _enforce(self, member: Member, now: float) -> None:
        settings = self._config.settings
        limit = settings.grace_seconds + KILL_MARGIN_SECONDS
        held = member.table.held()
        overdue = {h.id for h in held if h.state == STARTED and now > h.deadline + limit}
        if overdue:
            log.error(
                "killing worker process %d: jobs %s ran past timeout and grace", member.pid, ", ".join(sorted(overdue))
            )
            member.guilty = overdue
            os.kill(member.pid, signal.SIGKILL)
            return
        if member.retiring and not self._signals:
            member.leaving = 0.0 if held else member.leaving or now  # its jobs' own timeouts are limit enough
        if member.leaving:
            patience = settings.shutdown_timeout_seconds + settings.grace_seconds + 10
            if now - member.leaving > patience:
                log.error("killing worker process %d: it did not stop within %.0f s", member.pid, patience)
                os.kill(member.pid, signal.SIGKILL)
            return
        # One after the other in each place: however long jobs take, there are at most twice the processes.
        if not member.retiring and self._predecessor(member) is None and (why := self._worn_out(member)):
            log.info("replacing worker process %d: %s", member.pid, why)
            self._retire(member)

    def _retire(self, member: Member) -> None:
        """Have it end when its jobs have; meanwhile another takes its place."""
        member.retiring = True
        self._members[self._members.index(member)] = self._place(member.number)
        self._retiring.append(member)
        self._tell(member, Order(None, unextended=member.beater.unextended if member.beater else 0, retire=True))

    def _predecessor(self, member: Member) -> Member | None:
        return next((m for m in self._retiring if m.number == member.number), None)

    def _port_is_taken(self, member: Member) -> bool:
        """Whether it would listen where its predecessor, by what that last reported, still does."""
        before = self._predecessor(member)
        return bool(self._config.settings.http_port and before is not None and before.table.pulse().port)

    def _worn_out(self, member: Member) -> str:
        settings = self._config.settings
        pulse = member.table.pulse()
        if not pulse.worker:
            return ""  # it has not begun
        if settings.max_jobs is not None and pulse.done >= settings.max_jobs:
            return f"it has run {pulse.done} jobs (max_jobs)"
        if settings.max_memory_mb is not None:
            used = resident_mb(member.pid)
            if used > settings.max_memory_mb:
                return f"it uses {used:.0f} MB (max_memory_mb)"
        if pulse.state == STUCK:
            return "too many of its threads are stuck"
        return ""


def resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where the system does not say (anything but Linux)."""
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0
