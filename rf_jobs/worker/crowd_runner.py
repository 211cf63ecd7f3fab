"""Runs crowds: one call of ``handle_many`` for several attempts, each of which keeps its own lease, span, outcome and event."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from rf_jobs.core.transitions import AttemptEnd
from rf_jobs.model.crypto import Keyring
from rf_jobs.model.envelope import Envelope
from rf_jobs.model.events import JobStarted
from rf_jobs.model.jobclass import JobClass
from rf_jobs.model.many import verdicts
from rf_jobs.model.sealing import Guard
from rf_jobs.words.errors import WorkerError
from rf_jobs.words.timing import mono
from rf_jobs.worker.attempt import Attempt, Crowd
from rf_jobs.worker.outcome import Completed, Failed, Outcome, Policy
from rf_jobs.worker.runner import Runner, reason_of

Ended = Callable[[Attempt, AttemptEnd | None], None]


class CrowdRunner(Runner):
    """A runner that runs crowds too."""

    gathers = True

    async def perform_many(self, crowd: Crowd, ended: Ended) -> None:
        """Run a crowd; ``ended`` hears of each member's end as soon as it is known, so that none waits for the ``failed``
        of another with a lease that nobody extends."""
        plans = {
            member: self._plans.of(member.job.__job_class__, member.job, _letter(member)) for member in crowd.members
        }
        crowd.timeout = max(plan.timeout for plan in plans.values())
        outcomes = await self._prepare(crowd, {member: plan.policy for member, plan in plans.items()})
        going = [member for member in crowd.members if member not in outcomes]
        if going:
            outcomes.update(zip(going, await self._run_together(crowd, going), strict=True))
        slow = []
        for member, outcome in outcomes.items():
            told = self._conclude(member, outcome, plans[member].policy)
            if self._takes_no_time(member, outcome):
                ended(member, await told)
            else:
                slow.append(self._tell(member, told, ended))
        if slow:
            crowd.deadline = mono() + crowd.timeout
            await asyncio.gather(*slow)

    def _takes_no_time(self, member: Attempt, outcome: Outcome) -> bool:
        """Whether nothing is left to do for it but to tell the store."""
        hook = member.entry is not None and member.entry.has_failed and not isinstance(outcome, Completed)
        return not hook and (member.ctx is None or member.ctx.unsent is None)

    async def _tell(self, member: Attempt, told: Any, ended: Ended) -> None:
        ended(member, await told)

    # --- before ------------------------------------------------------------------------------------------------

    async def _prepare(self, crowd: Crowd, policies: dict[Attempt, Policy]) -> dict[Attempt, Outcome]:
        """Give each member its context. Answers with outcomes of those that will not run."""
        outcomes: dict[Attempt, Outcome] = {}
        deadline = crowd.began + crowd.timeout
        for member in crowd.members:
            member.begin()
            member.timeout, member.deadline = crowd.timeout, deadline
            member.ctx = self._context(member, _letter(member), policies[member])
        kept = [(m, m.ctx) for m in crowd.members if m.ctx is not None and (m.leased.again or m.ctx.follows)]
        if kept:
            found = await asyncio.gather(*(self._restore(ctx) for _, ctx in kept))
            outcomes.update({m: unread for (m, _), unread in zip(kept, found, strict=True) if unread is not None})
        crowd.deadline = deadline
        tells = self._bus.wants(JobStarted)
        for member in crowd.members:
            if member.stop:
                outcomes[member] = self._interrupted(member)
            elif member not in outcomes:
                self._on_start(member)
                if tells:
                    self._say_started(member, _letter(member))
        return outcomes

    # --- the run -----------------------------------------------------------------------------------------------

    async def _run_together(self, crowd: Crowd, going: Sequence[Attempt]) -> list[Outcome]:
        """One call for all of them; an outcome for each."""
        answers: list[Any]
        try:
            crowd.task = crowd.slot
            if self._middleware.wraps_runs:
                answers = await _Layers(self, going).run()
            else:
                answers = await self.call(going)
        except asyncio.CancelledError as error:
            fate = await self._settle_cancelled(crowd, error)
            answers = [fate.error if isinstance(fate, Failed) else error] * len(going)
        except BaseException as error:  # whatever it raises is the jobs', as of any handler
            answers = [error] * len(going)
        finally:
            crowd.task = None
        if len(going) > 1 and isinstance(answers[0], BaseException) and answers[-1] is answers[0]:
            crowd.scrub = _Scrubber([self._guard(member, member.letter) for member in going])
        if crowd.stop:
            await self._swallowed(crowd)
        return [self._fate(member, answer) for member, answer in zip(going, answers, strict=True)]

    def _fate(self, member: Attempt, answer: Any) -> Outcome:
        if member.stop:
            return self._interrupted(member)
        if isinstance(answer, BaseException):
            return Failed(answer, reason_of(answer))
        return Completed(answer)

    async def call(self, members: Sequence[Attempt]) -> list[Any]:
        """Call ``handle_many``; what it said of each of these."""
        entry = _entry(members[0])
        jobs, ctxs = [member.job for member in members], [member.ctx for member in members]
        if entry.is_async:
            value = await entry.type.handle_many(jobs, ctxs)
        else:
            value = await self._threads.run(lambda: entry.type.handle_many(jobs, ctxs))
            if inspect.iscoroutine(value):
                value = await value
        return verdicts(value, len(members), entry.name)

    def _guard(self, attempt: Attempt, letter: Envelope | None) -> Guard | None:
        own = super()._guard(attempt, letter)
        crowd = attempt.crowd
        if own is None or letter is None or crowd is None or crowd.scrub is None:
            return own
        return _CrowdGuard(letter, attempt.job, self._keyring, crowd.scrub)

    async def inside(self, member: Attempt, handle: Callable[[], Any]) -> Any:
        """Call ``handle`` inside the middlewares, as the member's run."""
        if member.ctx is None:
            raise WorkerError("only an attempt that was opened can run")
        return await self._middleware.run(member.ctx, member.job, handle)


class _Scrubber:
    """Takes what is sealed of any job of a crowd out of an error that all of them share."""

    def __init__(self, guards: Sequence[Guard | None]) -> None:
        self._guards = [guard for guard in guards if guard is not None]
        self._known: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        if text not in self._known:
            clean = text
            for guard in self._guards:
                clean = guard.scrub(clean)
            self._known[text] = clean
        return self._known[text]


class _CrowdGuard(Guard):
    """Of a job whose crowd failed as a whole: the error may quote its neighbours."""

    __slots__ = ("_shared",)

    def __init__(self, letter: Envelope, job: Any, keyring: Keyring, shared: Callable[[str], str]) -> None:
        super().__init__(letter, job, keyring)
        self._shared = shared

    def scrub(self, text: str) -> str:
        """``text`` with the sealed values of all of them masked."""
        return self._shared(text)


class _Layers:
    """A crowd whose members are each inside the middlewares' ``around``, while one call runs them all: in the first's."""

    def __init__(self, runner: CrowdRunner, members: Sequence[Attempt]) -> None:
        self._runner = runner
        self._members = members
        self._inside: dict[Attempt, asyncio.Future[bool]] = {}
        self._outside = len(members)
        """Members that have neither come to their handlers yet nor left before."""
        self._all_there = asyncio.Event()
        self._answers: dict[Attempt, Any] = {}
        self._raised_at: dict[int, TracebackType | None] = {}
        """Tracebacks of exceptions, by their ids: one may be raised in many members, and each would add to it."""

    async def run(self) -> list[Any]:
        """What came of each: a value or an exception, of ``handle_many`` or of a middleware."""
        runs = [asyncio.create_task(self._one(member), name="rf-jobs-member") for member in self._members]
        runs.append(asyncio.create_task(self._start(), name="rf-jobs-crowd"))
        return (await asyncio.gather(*runs))[:-1]

    async def _start(self) -> None:
        """Once all are there, one of them makes the call: what it traces belongs to that one."""
        await self._all_there.wait()
        for turn in self._inside.values():
            if not turn.done():
                turn.set_result(True)
                return

    async def _one(self, member: Attempt) -> Any:
        try:
            return await self._runner.inside(member, lambda: self._handle(member))
        except BaseException as error:  # a task must not raise a SystemExit: it would end the event loop
            return error
        finally:
            if member not in self._inside:
                self._arrived()

    def _arrived(self) -> None:
        self._outside -= 1
        if not self._outside:
            self._all_there.set()

    async def _handle(self, member: Attempt) -> Any:
        if member not in self._answers:  # a layer that calls its handler twice gets the same answer
            turn = self._inside[member] = asyncio.get_running_loop().create_future()
            self._arrived()
            if await turn:
                await self._call_for_all()
        answer = self._answers[member]
        if isinstance(answer, BaseException):
            raise answer.with_traceback(self._raised_at[id(answer)])
        return answer

    async def _call_for_all(self) -> None:
        there = list(self._inside)
        try:
            answers = await self._runner.call(there)
        except BaseException as error:  # each member's to raise
            answers = [error] * len(there)
        self._answers = dict(zip(there, answers, strict=True))
        self._raised_at = {id(each): each.__traceback__ for each in answers if isinstance(each, BaseException)}
        for turn in self._inside.values():
            if not turn.done():
                turn.set_result(False)


def _letter(member: Attempt) -> Any:
    return member.letter


def _entry(member: Attempt) -> JobClass:
    entry: JobClass = member.job.__job_class__
    return entry
