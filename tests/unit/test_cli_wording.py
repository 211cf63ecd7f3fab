"""How the command line reads durations and times, and how it writes numbers, times and foreign text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
import pytest

from rf_jobs.cli import options, wording
from rf_jobs.cli.exits import Exit, exit_code
from rf_jobs.words import errors
from rf_jobs.words.printing import clean

NOW = datetime(2030, 1, 31, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("0", 0),
        ("15m", 900),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("2d", 172_800),
        (" 1W ", 604_800),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert options.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-3", "h", "1x", "1h 30m", "m15", "1e3", "nan", "200000w"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration"):
        options.duration(text)


def test_a_time_without_zone_is_this_hosts() -> None:
    assert options.moment("2030-01-31T08:00:00+02:00").utcoffset() == timedelta(hours=2)
    assert options.moment("2030-01-31T08:00").tzinfo is not None
    with pytest.raises(click.BadParameter, match="is no time; give ISO 8601"):
        options.moment("tomorrow")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0 s"),
        (0.34, "340 ms"),
        (5.2, "5.2 s"),
        (200, "3 m 20 s"),
        (7200, "2 h"),
        (187_200, "2 d 4 h"),
        (86_460, "1 d"),
    ],
)
def test_durations_are_written(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


def test_times_are_written_with_their_distance() -> None:
    assert wording.ago(NOW - timedelta(seconds=200), NOW) == "3 m 20 s ago"
    assert wording.ago(NOW + timedelta(hours=2), NOW) == "in 2 h"
    assert wording.ago(None) == wording.when(None) == "-"
    assert wording.when(NOW, NOW) == f"{NOW.astimezone():%Y-%m-%d %H:%M:%S} (0 s ago)"


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (212, "212 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (1 << 60, "1048576.0 TiB")]
)
def test_sizes_are_written(count: int, text: str) -> None:
    assert wording.size(count) == text


def test_text_from_the_store_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert clean("a\x9b\nc\td", lines=True) == "a\\x9b\nc\td"
    assert wording.short("one\n  two\x07", 60) == "one two\\x07"
    assert wording.short("x" * 70) == "x" * 59 + "…"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.BackendError("x"), Exit.SERVER),
        (errors.ConfigError("x"), Exit.USAGE),
        (errors.JobNotFound("x"), Exit.NOT_FOUND),
        (errors.UnknownQueue("x"), Exit.NOT_FOUND),
        (errors.DuplicateJob("x"), Exit.USAGE),
        (errors.PayloadTooLarge("x"), Exit.USAGE),
        (TimeoutError("x"), Exit.TIMEOUT),
        (ZeroDivisionError("x"), Exit.BUG),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: Exit) -> None:
    assert exit_code(error) == code
