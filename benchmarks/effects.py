"""What the effect log of ``benchmarks.kill`` proves: pure, so that its own judgement can be tested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Run:
    """One time that a handler ran."""

    number: int
    pid: int
    started_ns: int
    ended_ns: int | None


@dataclass(frozen=True)
class Verdict:
    """What came of all jobs."""

    lost: list[int]
    """No run of it came to its end."""
    twice_in_flight: int
    """Ran again after a kill that caught it under way, or before its acknowledgement had left."""
    twice_wrongly: list[int]
    """Ran again although its worker lived on, or although it had ended long before the kill."""


def runs_of(lines: Iterable[str]) -> list[Run]:
    """From lines ``start|end NUMBER PID NANOSECONDS``, in the order of the log."""
    open_runs: dict[tuple[int, int], list[int]] = defaultdict(list)
    found: list[Run] = []
    for line in lines:
        what, number, pid, at = line.split()
        key = (int(number), int(pid))
        if what == "start":
            open_runs[key].append(int(at))
        else:
            found.append(Run(*key, started_ns=open_runs[key].pop(0), ended_ns=int(at)))
    found += [Run(*key, started_ns=at, ended_ns=None) for key, starts in open_runs.items() for at in starts]
    return sorted(found, key=lambda run: run.started_ns)


def judge(count: int, runs: Iterable[Run], kills: Mapping[int, int], window_ns: int) -> Verdict:
    """``kills`` is when each killed process died; an acknowledgement may take ``window_ns`` to leave."""
    by_number: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        by_number[run.number].append(run)
    excused = 0
    wrong: list[int] = []
    for number, attempts in by_number.items():
        if len(attempts) == 1:
            continue
        if all(_in_flight(run, kills, window_ns) for run in attempts[:-1]):
            excused += 1
        else:
            wrong.append(number)
    lost = [n for n in range(count) if not any(run.ended_ns for run in by_number.get(n, ()))]
    return Verdict(lost, excused, wrong)


def _in_flight(run: Run, kills: Mapping[int, int], window_ns: int) -> bool:
    killed_at = kills.get(run.pid)
    if killed_at is None:
        return False
    return run.ended_ns is None or killed_at - run.ended_ns <= window_ns
