"""The operations on schedules, as ``Call``: one function per script, plus the plain reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rf_jobs.store.calls import Arg, Call, pairs, text, texts
from rf_jobs.store.keys import Keys
from rf_jobs.store.shapes import Draft, Retention

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


class Due(NamedTuple):
    """A schedule that is due."""

    name: str
    tick: int
    revision: str


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
    """Makes calls for one namespace."""

    def __init__(self, keys: Keys, retention: Retention) -> None:
        self._keys = keys
        self._retention = retention

    def put(self, source: str, scheduler: str, schedules: Sequence[Put]) -> Call[list[int]]:
        """Answers for each with 0 same, 1 added, 2 changed, -1 refused."""
        args: list[Arg] = [source, scheduler, ORPHAN_MS]
        for one in schedules:
            args += (one.name, one.revision, one.timing, one.definition, _some(one.next), _some(one.due))
        return Call("admin", args, list, "schedule_put")

    def touch(self, scheduler: str, schedules: Sequence[tuple[str, str]]) -> Call[list[int]]:
        """``schedules``: name and revision. Answers with the positions (0-based) of those to be put again."""
        args: list[Arg] = [scheduler]
        for name, revision in schedules:
            args += (name, revision)
        return Call("admin", args, lambda r: [at - 1 for at in r], "schedule_touch")

    def trouble(self, name: str, revision: str, tick: int, error: str) -> Call[bool]:
        return Call("admin", (name, revision, tick, TROUBLED_MS, error), bool, "schedule_trouble")

    def leave(self, scheduler: str) -> list[Call[int]]:
        """What a scheduler that stops has to send."""
        keys = self._keys
        return [
            Call("admin", ("ZREM", keys.of("schedulers"), scheduler), int),
            Call("admin", ("UNLINK", keys.of("scheduler", scheduler)), int),
        ]

    def due(self, scheduler: str, limit: int, facts: dict[str, Arg]) -> Call[Agenda]:
        args: list[Arg] = [scheduler, BELIEVED_MS, HIDDEN_MS, limit]
        for name, value in facts.items():
            args += (name, value)

        def read(r: Any) -> Agenda:
            found = texts(r[2])
            due = [Due(found[i], int(found[i + 1]), found[i + 2]) for i in range(0, len(found), 3)]
            return Agenda(int(r[0]), int(float(r[1])) if r[1] else None, due)

        return Call("fetch", args, read, "schedule_due")

    def fire(self, scheduler: str, ticks: Sequence[Tick]) -> Call[list[tuple[str, str]]]:
        """Answers for each with a code and a detail, see schedule_fire.lua."""
        args: list[Arg] = [*self._retention.args(), scheduler, ORPHAN_MS]
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

        return Call("dispatch", args, read, "schedule_fire", 1)

    def pause(self, name: str) -> Call[int]:
        """Answers with 1 done, 0 it was so already, -1 unknown."""
        return Call("admin", (name, "1", "", "", ""), int, "schedule_pause")

    def resume(self, name: str, revision: str, tick: int | None, due: int | None) -> Call[int]:
        """As ``pause``, and -2: another revision."""
        return Call("admin", (name, "0", revision, _some(tick), _some(due)), int, "schedule_pause")

    def drop(self, name: str) -> Call[int]:
        """Answers with 1 done, 0 unknown, -1 refused."""
        return Call("admin", (name, ORPHAN_MS), int, "schedule_drop")

    # --- plain reads ---------------------------------------------------------------------------------------------

    def definition(self, name: str) -> Call[tuple[str, bytes]]:
        """Its revision and its definition, both empty where there is none."""

        def read(r: Any) -> tuple[str, bytes]:
            return (text(r[0]), r[1]) if r[0] and r[1] else ("", b"")

        return Call("read", ("HMGET", self._keys.of("schedule", name), "rev", "def"), read)

    def facts(self, name: str) -> Call[dict[str, str]]:
        """All that is known of it."""
        return Call("read", ("HGETALL", self._keys.of("schedule", name)), pairs)

    def names(self, offset: int, limit: int) -> Call[list[str]]:
        """Names by their next run; those that have none come last."""
        return Call("read", ("ZRANGE", self._keys.of("schedules"), offset, offset + limit - 1), texts)

    def count(self) -> Call[int]:
        """How many there are."""
        return Call("read", ("ZCARD", self._keys.of("schedules")), int)

    def survey(self, most: int) -> Call[ScheduleSurvey]:
        """All that an exporter shows, of at most so many schedules."""

        def read(r: Any) -> ScheduleSurvey:
            flat = texts(r[3])
            rows = [ScheduleRow(flat[i], *map(_whole, flat[i + 1 : i + 6])) for i in range(0, len(flat), 6)]
            return ScheduleSurvey(int(r[0]), int(r[1]), int(r[2]), rows)

        return Call("read", (most,), read, "schedule_survey")


def _whole(value: str) -> int | None:
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        return None


def _some(value: int | None) -> Arg:
    return "" if value is None else value
