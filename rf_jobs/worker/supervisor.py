"""The supervisor: starts worker processes, keeps their leases alive, replaces them, and settles the estate of those that die.

It runs no event loop, imports no job module and calls nothing of the application, so nothing of that can stop it. It renews
leases from outside: a child that is busy in C code, or frozen, loses nothing as long as it lives and its jobs are inside
their timeout and grace. When a child dies its lease table tells which jobs were running (they count a crash) and which were
merely held (they are handed back).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
from typing import Any

from rf_jobs.client.manager import retention_of
from rf_jobs.store.keys import shards_of
from rf_jobs.store.redis import SyncStore
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import ConfigError, RfJobsError, WorkerError
from rf_jobs.words.timing import mono
from rf_jobs.worker.commission import Commission, Starter
from rf_jobs.worker.config import WorkerConfig
from rf_jobs.worker.estate import Estate
from rf_jobs.worker.leases import QUIET, RUNNING, STARTED, STUCK, LeaseTable
from rf_jobs.worker.member import HEALTHY_AFTER_SECONDS, Member, Place
from rf_jobs.worker.orders import Order, OrderPipe
from rf_jobs.worker.page import Page
from rf_jobs.worker.pool import table_capacity
from rf_jobs.worker.roll import END_REASONS, Child, Roll
from rf_jobs.worker.rollout import Rollout
from rf_jobs.worker.upkeep import BEAT_SECONDS

log = logging.getLogger("rf_jobs.supervisor")
TICK_SECONDS = 0.25
KILL_MARGIN_SECONDS = 2.0
START_SECONDS = 600.0
"""A child that has not begun by then counts as one that could not."""
MAX_START_FAILURES = 5
"""So many processes of one place that cannot start, with none that ever ran anywhere, and the supervisor gives up."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Supervisor:
    """``run`` starts the children and returns when all have ended after SIGTERM or SIGINT; the second signal cuts running
    jobs off (they are handed back), the third kills. SIGHUP replaces all children, one after the other, by new ones with the
    code that is on the disk; SIGTSTP quiets them: they take no more jobs.

    ``equip`` names a function, ``module:function``, that each child calls first with its ``Commission``: the place to set
    logging up, to import the job classes, and to answer with what belongs around the pool, such as telemetry. Without it
    the modules of ``imports`` are imported. ``page`` is the module that serves ``http_port``, see ``Page``. Call ``run`` in the
    main thread.
    """

    def __init__(self, config: WorkerConfig, settings: Settings, *, equip: str = "", page: str = "") -> None:
        jobs = settings.jobs
        self._settings = settings
        self._equip = equip
        self._store = SyncStore(jobs.redis_url, shards_of(jobs), allow_eviction=settings.security.allow_evicting_server)
        self._estate = Estate(self._store, retention_of(jobs))
        self._places = [
            Place(name, number, each, self._store, jobs.default_queue)
            for name, each in config.by_set().items()
            for number in range(each.settings.processes)
        ]
        self._rollout = Rollout(self._places, self._relieve)
        self._starter = Starter()
        self._page_module, self._http = page, (config.settings.http_host, config.settings.http_port)
        self._page: Page | None = None
        self._children = 0
        """How many were started so far."""
        self._ends: dict[str, int] = dict.fromkeys(END_REASONS, 0)
        self._ever_ran = False
        self._fatal: RfJobsError | None = None
        self._signals = 0
        self._hang_ups = 0
        self._on_terminal = os.isatty(0)
        self._quieted = False
        self._quiet = False
        self._wakeup = socket.socketpair()

    def run(self) -> int:
        """Supervise until told to stop; answers with the exit code. Raises ``BackendError`` where the server is not fit at the
        start, ``ConfigError`` where the first children cannot begin, ``WorkerError`` where the port cannot be had, or no
        child ever began."""
        self._store.run(self._store.commands.ping())
        host, port = self._http
        if self._page_module and port is not None:
            self._page = Page(self._page_module, self._settings, host, port, self._starter)
        for end in self._wakeup:
            end.setblocking(False)
        previous: dict[int, Any] = {s: signal.signal(s, self._on_signal) for s in STOP_SIGNALS}
        for ours, do in ((signal.SIGHUP, self._on_hang_up), (signal.SIGTSTP, self._on_quiet)):
            if signal.getsignal(ours) is signal.SIG_DFL:  # nohup, and programs with a meaning of their own, keep it
                previous[ours] = signal.signal(ours, do)
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        old_fd = signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        try:
            while not (self._signals and not self._members):
                self._round()
                self._sleep()
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            for end in self._wakeup:
                end.close()
            if self._page is not None:
                self._page.close()
            self._store.close()
        if self._fatal is not None:
            raise self._fatal
        return 0

    # --- signals -------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int, frame: Any) -> None:
        self._signals += 1
        self._pass_on()

    def _on_hang_up(self, number: int, frame: Any) -> None:
        if self._on_terminal and not os.isatty(0):  # it was closed, and this does not outlive it
            self._on_signal(number, frame)
        self._hang_ups += 1

    def _on_quiet(self, number: int, frame: Any) -> None:
        self._quieted = True

    def _pass_on(self) -> None:
        """Each child gets each signal once, also the one that comes between two lines of ours."""
        for member in self._members:
            member.signal(self._signals)

    def _sleep(self) -> None:
        ready, _, _ = select.select([self._wakeup[0]], [], [], TICK_SECONDS)
        if ready:
            with contextlib.suppress(BlockingIOError):
                self._wakeup[0].recv(4096)

    # --- the round -----------------------------------------------------------------------------------------------

    @property
    def _members(self) -> list[Member]:
        return [member for place in self._places for member in place.members]

    def _round(self) -> None:
        self._pass_on()
        self._heed()
        for member in self._members:
            if member.process.poll() is not None:
                self._bury(member)
                continue
            now = mono()
            self._beat(member, now)
            self._enforce(member, now)
        now = mono()
        if not self._signals:
            self._staff(now)
            self._rollout.step(now)
        self._report(now)

    def _heed(self) -> None:
        """Do what signals asked for."""
        if self._signals:
            self._rollout.give_up()
            return
        if self._quieted:
            self._quieted, self._quiet = False, True
            self._rollout.give_up()
            log.info("quiet: no more jobs are taken; SIGTERM stops, SIGHUP starts new processes that take jobs again")
            for member in self._members:
                member.next_beat = 0.0  # they are told with it
        if self._hang_ups:
            self._hang_ups, self._quiet = 0, False
            self._rollout.begin()

    def _staff(self, now: float) -> None:
        """See that there is somebody in each place, and that who is worn out is relieved."""
        for place in self._places:
            member = place.current
            if member is None:
                if now >= place.start_at and not self._quiet:
                    place.current = self._start(place)
            elif place.successor is not None:
                if place.successor.ready_at:
                    self._hand_over(place)
            elif (
                not self._quiet
                and place.predecessor is None
                and now >= place.start_at
                and (why := member.worn_out(now))
            ):
                self._relieve(member, why)

    def _report(self, now: float) -> None:
        if self._page is None:
            return
        children = [
            Child(
                place.name, member.pid, self._page.readings(member.number), member is place.current,
                member.pulse.slots, member.pulse.busy,
            )
            for place in self._places for member in place.members
        ]  # fmt: skip
        troubles = [why for place in self._places if (why := place.stalled(now))]
        self._page.round(Roll(children, troubles, len(self._places), dict(self._ends)))

    # --- life and death ------------------------------------------------------------------------------------------

    def _start(self, place: Place) -> Member | None:
        """Start a child; None where the system could not, which counts as a death."""
        table = LeaseTable.shared(table_capacity(place.config), place.queues)
        ours, theirs = socket.socketpair()
        self._children += 1
        try:
            with theirs:
                fds = theirs.fileno(), table.fd
                process = self._starter.start("rf_jobs.worker.child_main", place.name, *map(str, fds), fds=fds)
        except OSError as error:
            ours.close()
            table.close()
            self._could_not_start(place, f"could not be started: {error}", None)
            return None
        member = Member(place, table, process, OrderPipe(ours), self._children)
        member.generation = self._rollout.generation
        member.pipe.send(
            Commission(
                name=place.name,
                settings=self._settings,
                worker=place.settings,
                capacity=table.capacity,
                parent=os.getpid(),
                equip=self._equip,
                path=sys.path,
                port=self._page.port if self._page is not None else 0,
                readings=self._page.readings(member.number) if self._page is not None else "",
            )
        )
        log.info("started worker process %d%s", process.pid, f" for {place.name}" if len(self._places) > 1 else "")
        return member

    def _relieve(self, member: Member, why: str) -> None:
        """Start another in its place; it retires when that one is ready."""
        log.info("replacing worker process %d: %s", member.pid, why)
        member.why = why
        member.place.successor = self._start(member.place)

    def _hand_over(self, place: Place) -> None:
        member = place.hand_over()
        if member is not None:
            member.retiring = True
            member.tell(Order(None, unextended=member.beater.unextended, retire=True))

    def _bury(self, member: Member) -> None:
        """It has ended: why, what becomes of its jobs, and what of its place."""
        place, code, failure = member.place, member.process.returncode, member.last_words()
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        held = member.table.held()
        expected = bool(member.signals) or member.retiring
        place.remove(member)
        if code != 0 or held:
            if member.ready_at or held:
                log.error("worker process %d died (%s) holding %d jobs", member.pid, cause, len(held))
            self._estate.settle(member, held, cause)
        member.close()
        if expected:
            self._ends[
                "stopped" if member.signals else "rolled" if member.why == "rolling restart" else "recycled"
            ] += 1
            return
        if not member.ready_at:
            why = f"did not start: {failure.message}" if failure is not None else f"died at its start ({cause})"
            self._could_not_start(place, why, failure.error() if failure is not None else None)
            return
        self._ends["crashed" if code else "stopped"] += 1
        if code == 0 or mono() - member.ready_at > HEALTHY_AFTER_SECONDS:
            place.recovered()
        else:
            place.failed(f"died ({cause})")

    def _could_not_start(self, place: Place, why: str, error: RfJobsError | None) -> None:
        self._ends["not_started"] += 1
        pause = place.failed(why)
        log.error(
            "worker process %s %s; start %d in a row that failed, the next is in %.1f s",
            place.name, why, place.failures, pause,
        )  # fmt: skip
        self._rollout.failed(why)
        if self._ever_ran or self._fatal is not None:
            return
        if isinstance(error, ConfigError):
            self._fatal = error  # no pause would help
        elif place.failures >= MAX_START_FAILURES:
            text = f"no worker process could be started: the last of {place.failures} {why}; mend that and run it again"
            self._fatal = WorkerError(text) if error is None else type(error)(text)
        if self._fatal is not None:
            self._on_signal(signal.SIGTERM, None)

    # --- heartbeats and limits -----------------------------------------------------------------------------------

    def _beat(self, member: Member, now: float) -> None:
        if member.beater.pause <= BEAT_SECONDS:
            member.next_beat = min(member.next_beat, member.beaten + BEAT_SECONDS)
        if now < member.next_beat or not member.pulse.worker:
            return
        member.beaten, member.next_beat = now, now + member.beater.pause
        self._estate.beat(member, quiet=self._quiet)
        if not member.ready_at and not member.beater.failures and member.pulse.state in (RUNNING, STUCK, QUIET):
            member.ready_at = now
            self._ever_ran = True
        member.place.thrives(member, now)

    def _enforce(self, member: Member, now: float) -> None:
        settings = member.place.settings
        limit = settings.grace_seconds + KILL_MARGIN_SECONDS
        held = member.table.held()
        overdue = {h.id for h in held if h.state == STARTED and now > h.deadline + limit}
        if overdue:
            jobs = ", ".join(sorted(overdue))
            log.error("killing worker process %d: jobs %s ran past timeout and grace", member.pid, jobs)
            member.guilty = overdue
            member.kill()
            return
        if not member.ready_at and now - member.started > START_SECONDS:
            log.error("killing worker process %d: it has not begun within %.0f s", member.pid, START_SECONDS)
            member.kill()
            return
        if member.retiring and not self._signals:
            member.leaving = 0.0 if held else member.leaving or now  # its jobs' own timeouts are limit enough
        if member.leaving:
            patience = settings.shutdown_timeout_seconds + settings.grace_seconds + 10
            if now - member.leaving > patience:
                log.error("killing worker process %d: it did not stop within %.0f s", member.pid, patience)
                member.kill()
