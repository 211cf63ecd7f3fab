"""What a watcher is told: everything that is new, once, in an order in which it may have happened."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs import AttemptError, Cancellation, JobUpdate, LogLine, Progress, StateChanged
from rf_jobs.core.joblog import read_lines
from rf_jobs.core.updates import Follower, Look


def line(message: str, attempt: int = 1) -> bytes:
    return msgspec.json.encode({"at": 1000, "level": 20, "message": message, "attempt": attempt})


def failure(message: str) -> bytes:
    return msgspec.json.encode({"type": "ValueError", "message": message, "at": 1000, "attempt": 1})


def progress(current: int) -> bytes:
    return msgspec.json.encode({"current": current, "total": 10, "message": ""})


def told(updates: list[JobUpdate]) -> list[Any]:
    """The gist of each."""
    gist: list[Any] = []
    for update in updates:
        match update:
            case StateChanged():
                gist.append((update.state, update.attempt))
            case Progress():
                gist.append(update.current)
            case LogLine() | AttemptError():
                gist.append(update.message)
            case Cancellation():
                gist.append(update.stage)
    return gist


RUNNING = {"state": "running", "attempt": "1", "epoch": "5"}


def test_a_job_that_never_ran_has_the_state_it_was_found_in() -> None:
    follower = Follower("scheduled")
    assert told(follower.news(Look({}))) == [("scheduled", 0)]
    assert follower.news(Look({})) == []
    assert told(follower.news(Look({"state": "ready"}))) == [("ready", 0)]
    assert not follower.is_over


def test_what_an_attempt_said_comes_after_its_start_and_before_its_end() -> None:
    follower = Follower("ready")
    assert told(follower.news(Look(RUNNING, progress(1), [], 1, [line("a")]))) == [("running", 1), "a", 1]
    end = {**RUNNING, "state": "completed", "finished": "9"}
    assert told(follower.news(Look(end, progress(2), [], 2, [line("b")]))) == ["b", 2, ("completed", 1)]
    assert follower.is_over


def test_a_retry_that_went_unseen_is_told_by_its_failure_and_in_order() -> None:
    follower = Follower("ready")
    follower.news(Look(RUNNING, progress(1), [], 1, [line("a")]))
    second = {"state": "running", "attempt": "2", "epoch": "7"}
    look = Look(second, progress(3), [failure("no")], 2, [line("b", 1), line("c", 2)])
    assert told(follower.news(look)) == ["b", "no", ("running", 2), "c", 3]


def test_a_lease_that_was_given_back_and_taken_again_is_a_start() -> None:
    follower = Follower("ready")
    follower.news(Look(RUNNING))
    assert told(follower.news(Look({**RUNNING, "epoch": "6"}))) == [("running", 1)]


def test_a_request_to_stop_is_told_at_each_of_its_stages() -> None:
    follower = Follower("ready")
    follower.news(Look(RUNNING))
    asked = {**RUNNING, "cancel": "why", "asked": "10"}
    assert told(follower.news(Look(asked))) == ["requested"]
    assert follower.news(Look(asked)) == []
    assert told(follower.news(Look({**asked, "heard": "20"}))) == ["acknowledged"]
    end = {**asked, "heard": "20", "state": "cancelled", "finished": "30"}
    assert told(follower.news(Look(end))) == ["stopped", ("cancelled", 1)]


def test_errors_beyond_those_that_are_kept() -> None:
    follower = Follower("ready")
    assert told(follower.news(Look(RUNNING, None, [failure("1"), failure("2")]))) == ["1", "2", ("running", 1)]
    assert told(follower.news(Look(RUNNING, None, [failure("2"), failure("3")]))) == ["3"]
    assert told(follower.news(Look(RUNNING, None, None))) == []
    assert told(follower.news(Look(RUNNING, None, [failure("7"), failure("8")]))) == ["7", "8"]


def test_damaged_lines_and_progress_are_survived() -> None:
    follower = Follower("ready")
    updates = follower.news(Look(RUNNING, b"\xff", [b"[]"], 1, [b"\xff{", b"[1]", b'{"at":1e300,"level":"x"}']))
    assert [type(update).__name__ for update in updates] == ["LogLine"] * 0 + [
        "LogLine", "LogLine", "LogLine", "AttemptError", "StateChanged",
    ]  # fmt: skip


@given(st.lists(st.lists(st.text(max_size=5), max_size=4), max_size=6), st.data())
def test_each_line_is_told_once_however_the_looks_overlap(batches: list[list[str]], data: st.DataObject) -> None:
    follower, kept, seen = Follower("ready"), [], []
    for batch in batches:
        kept += [line(message) for message in batch]
        first = data.draw(st.integers(1, follower.line + 1))
        seen += [
            update
            for update in follower.news(Look(RUNNING, lines=kept[first - 1 :], first=first))
            if isinstance(update, LogLine)
        ]
    assert [update.number for update in seen] == list(range(1, len(kept) + 1))
    assert [update.message for update in seen] == [message for batch in batches for message in batch]


@given(st.binary(max_size=200))
def test_any_line_can_be_shown(data: bytes) -> None:
    [shown] = read_lines(3, [data])
    assert shown.number == 3
    assert shown.level_name
