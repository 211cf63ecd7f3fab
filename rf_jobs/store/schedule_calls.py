"""The operations on schedules, as ``Call``: one function per script, plus the plain reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.commands import Commands, in_order
from rf_jobs.store.keys import Keys
from rf_jobs.store.shapes import Draft

ORPHAN_MS = 180_000
"""A schedule of the code that no scheduler has named for so long is orphaned: it does not run, and may be removed."""
BELIEVED_MS = 15_000
"""For so long a scheduler is believed to live after it last asked for what is due."""
HIDDEN_MS = 1_000
"""For so long a due schedule is one scheduler's alone; if that dies, others have it then."""

TROUBLED_MS = 5_000
"""For so long a schedule that a scheduler cannot run is out of sight."""


class Put(NamedTuple):
    """A schedule on its way into the store."""

    name: str
    revision: str
    timing: str
    """A digest of when it runs: while that stays the same, the tick that is waited for does too."""
    definition: bytes
    next: int | None
    due: int | None
    queue: str
    """Of its jobs; in its shard it is kept."""


class Tick(NamedTuple):
    """A tick of a schedule, on its way into the store. Times are ms."""

    name: str
    expected: int | None
    """The tick that is waited for; None for a run out of turn."""
    revision: str
    run: int | None
    """The tick to run, None: none."""
    next: int | None
    due: int | None
    missed: int
    error: str
    draft: Draft | None
    """The tick's job, where one is to run."""
    job_class: str = ""
    shard: int = 0
    """Where the schedule is."""


class Due(NamedTuple):
    """A schedule that is due."""

    name: str
    tick: int
    revision: str
    shard: int = 0


@dataclass(frozen=True, slots=True)
class Agenda:
    """What a scheduler has to do."""

    now_ms: int
    next_due_ms: int | None
    schedules: list[Due]


class ScheduleRow(NamedTuple):
    """How a schedule fares. Times are ms, None where there is none."""

    name: str
    due: int | None
    ran: int | None
    succeeded: int | None
    lag: int | None
    missed: int | None


@dataclass(frozen=True, slots=True)
class ScheduleSurvey:
    """Schedulers that live, all schedules, and how some of these fare."""

    now_ms: int
    schedulers: int
    schedules: int
    rows: list[ScheduleRow]


class ScheduleCalls:
    """Makes calls for one namespace. A schedule is kept where the jobs that it dispatches are."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def put(self, source: str, scheduler: str, schedules: Sequence[Put]) -> Call[list[int]]:
        """Answers for each with 0 same, 1 added, 2 changed, -1 refused."""

        def make(some: Sequence[Put], shard: int) -> Call[list[int]]:
            args: list[Arg] = [source, scheduler, ORPHAN_MS]
            for one in some:
                args += (one.name, one.revision, one.timing, one.definition, _some(one.next), _some(one.due))
            return Call("admin", args, list, "schedule_put", shard=shard)

        return self._commands.split(schedules, lambda one: one.queue, make, in_order)

    def moved(self, source: str, schedules: Sequence[Put]) -> list[Call[int]]:
        """To be sent once these were put: those of this source that were in another shard are not there any more."""
        shards = self._commands.shards
        homes = [(one.name, shards.of(one.queue)) for one in schedules]
        away = [[name for name, home in homes if home != number] for number in range(len(shards))]
        return [
            Call("admin", (source, *names), int, "schedule_moved", shard=number)
            for number, names in enumerate(away)
            if names
        ]

    def touch(self, scheduler: str, schedules: Sequence[tuple[str, str]]) -> Call[list[int]]:
        """``schedules``: name and revision. Answers with the positions (0-based) of those to be put again."""
        args: list[Arg] = [scheduler]
        for name, revision in schedules:
            args += (name, revision)
        return self._commands.everywhere(
            lambda _, number: Call("admin", args, lambda r: [at - 1 for at in r], "schedule_touch", shard=number),
            lambda answers: sorted(set(answers[0]).intersection(*answers)),
        )

    def trouble(self, name: str, revision: str, tick: int, error: str, shard: int) -> Call[bool]:
        return Call("admin", (name, revision, tick, TROUBLED_MS, error), bool, "schedule_trouble", shard=shard)

    def leave(self, scheduler: str) -> list[Call[int]]:
        """What a scheduler that stops has to send."""
        return [
            Call("admin", command, int, shard=number)
            for number, keys in enumerate(self._commands.shards.keys)
            for command in (("ZREM", keys.of("schedulers"), scheduler), ("UNLINK", keys.of("scheduler", scheduler)))
        ]

    def due(self, scheduler: str, limit: int, facts: dict[str, Arg]) -> Call[Agenda]:
        """At most ``limit`` in each shard."""
        args: list[Arg] = [scheduler, BELIEVED_MS, HIDDEN_MS, limit]
        for name, value in facts.items():
            args += (name, value)

        def make(_: Keys, number: int) -> Call[Agenda]:
            def read(r: Any) -> Agenda:
                found = texts(r[2])
                due = [Due(found[i], int(found[i + 1]), found[i + 2], number) for i in range(0, len(found), 3)]
                return Agenda(int(r[0]), int(float(r[1])) if r[1] else None, due)

            return Call("fetch", args, read, "schedule_due", shard=number)

        def merge(answers: list[Agenda]) -> Agenda:
            nexts = [one.next_due_ms for one in answers if one.next_due_ms is not None]
            due = [each for one in answers for each in one.schedules]
            return Agenda(answers[0].now_ms, min(nexts, default=None), due)

        return self._commands.everywhere(make, merge)

    def fire(self, scheduler: str, ticks: Sequence[Tick]) -> Call[list[tuple[str, str]]]:
        """Answers for each with a code and a detail, see schedule_fire.lua."""
        homes: dict[int, list[int]] = {}
        for at, one in enumerate(ticks):
            homes.setdefault(one.shard, []).append(at)

        def merge(answers: list[list[tuple[str, str]]]) -> list[tuple[str, str]]:
            return in_order(list(zip(homes.values(), answers, strict=True)))

        parts = tuple(self._fire(scheduler, [ticks[at] for at in places], number) for number, places in homes.items())
        return parts[0] if len(parts) == 1 else Call("dispatch", (), merge, parts=parts)

    def _fire(self, scheduler: str, ticks: Sequence[Tick], shard: int) -> Call[list[tuple[str, str]]]:
        args: list[Arg] = [*self._commands.retention.args(), scheduler, ORPHAN_MS]
        for one in ticks:
            args += (one.name, _some(one.expected), one.revision, _some(one.run), _some(one.next), _some(one.due))
            args += (one.missed, one.error)
            if one.draft is None:
                args += ("", "", 1, "", "", "", "")
            else:
                draft = one.draft
                args += (draft.id, draft.queue, draft.priority, draft.when.partition("!")[2], draft.options)
                args += (one.job_class, draft.data)

        def read(r: Any) -> list[tuple[str, str]]:
            said = texts(r[0])
            return [(said[i], said[i + 1]) for i in range(0, len(said), 2)]

        return Call("dispatch", args, read, "schedule_fire", 1, shard)

    def pause(self, name: str) -> Call[int]:
        """Answers with 1 done, 0 it was so already, -1 unknown."""
        return self._by_name((name, "1", "", "", ""), "schedule_pause", unknown=-1)

    def resume(self, name: str, revision: str, tick: int | None, due: int | None) -> Call[int]:
        """As ``pause``, and -2: another revision."""
        return self._by_name((name, "0", revision, _some(tick), _some(due)), "schedule_pause", unknown=-1)

    def drop(self, name: str) -> Call[int]:
        """Answers with 1 done, 0 unknown, -1 refused."""
        return self._by_name((name, ORPHAN_MS), "schedule_drop", unknown=0)

    def _by_name(self, args: Sequence[Arg], script: str, unknown: int) -> Call[int]:
        return self._commands.everywhere(
            lambda _, number: Call("admin", args, int, script, shard=number),
            lambda answers: next((answer for answer in answers if answer != unknown), unknown),
        )

    # --- plain reads ---------------------------------------------------------------------------------------------

    def definition(self, name: str) -> Call[tuple[str, bytes]]:
        """Its revision and its definition, both empty where there is none."""

        def read(r: Any) -> tuple[str, bytes]:
            return (text(r[0]), r[1]) if r[0] and r[1] else ("", b"")

        return self._commands.by_id(
            lambda keys: ("HMGET", keys.of("schedule", name), "rev", "def"), read, lambda found: found[0]
        )

    def facts(self, name: str) -> Call[dict[str, str]]:
        """All that is known of it."""
        return self._commands.by_id(lambda keys: ("HGETALL", keys.of("schedule", name)), pairs)

    def names(self, offset: int, limit: int) -> Call[list[str]]:
        """Names by their next run; those that have none come last."""
        return self._commands.listed("schedules", "", offset, limit)

    def count(self) -> Call[int]:
        """How many there are."""
        return self._commands.everywhere(
            lambda keys, number: Call("read", ("ZCARD", keys.of("schedules")), int, shard=number), sum
        )

    def survey(self, most: int) -> Call[ScheduleSurvey]:
        """All that an exporter shows, of at most so many schedules."""

        def read(r: Any) -> ScheduleSurvey:
            flat = texts(r[3])
            rows = [ScheduleRow(flat[i], *map(_whole, flat[i + 1 : i + 6])) for i in range(0, len(flat), 6)]
            return ScheduleSurvey(int(r[0]), int(r[1]), int(r[2]), rows)

        def merge(answers: list[ScheduleSurvey]) -> ScheduleSurvey:
            rows = [row for answer in answers for row in answer.rows]
            living = max(answer.schedulers for answer in answers)
            return ScheduleSurvey(answers[0].now_ms, living, sum(answer.schedules for answer in answers), rows[:most])

        return self._commands.everywhere(
            lambda _, number: Call("read", (most,), read, "schedule_survey", shard=number), merge
        )


def _whole(value: str) -> int | None:
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        return None


def _some(value: int | None) -> Arg:
    return "" if value is None else value
