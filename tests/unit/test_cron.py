from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs.words.cron import Cron
from rf_jobs.words.errors import InvalidOption, SchedulerError
from rf_jobs.words.recurrence import COUNTED, Every, Misfire, Step, Timetable, step, tick_id, timetable
from rf_jobs.words.zones import zone


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def following(expression: str, since: str, count: int, zone: str = "UTC") -> list[str]:
    cron, at, found = Cron(expression, zone), ms(since), []
    for _ in range(count):
        at = cron.after(at) or 0
        found.append(f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}")
    return found


@pytest.mark.parametrize(
    ("expression", "runs"),
    [
        ("30 2 * * *", ["2026-01-01 02:30:00", "2026-01-02 02:30:00"]),
        ("0 9 * * mon-fri", ["2026-01-01 09:00:00", "2026-01-02 09:00:00", "2026-01-05 09:00:00"]),
        ("0 0 1 JAN,jul *", ["2026-07-01 00:00:00", "2027-01-01 00:00:00"]),
        ("* * * * * */20", ["2026-01-01 00:00:20", "2026-01-01 00:00:40", "2026-01-01 00:01:00"]),
        ("0 0 l * *", ["2026-01-31 00:00:00", "2026-02-28 00:00:00"]),
        ("0 12 * * fri#2", ["2026-01-09 12:00:00", "2026-02-13 12:00:00"]),
        ("0 0 13 * fri", ["2026-01-02 00:00:00", "2026-01-09 00:00:00", "2026-01-13 00:00:00"]),
        ("0 0 29 2 *", ["2028-02-29 00:00:00"]),
        ("@daily", ["2026-01-02 00:00:00"]),
        (" @Weekly ", ["2026-01-04 00:00:00"]),
        ("@yearly", ["2027-01-01 00:00:00"]),
    ],
)
def test_expressions(expression: str, runs: list[str]) -> None:
    assert following(expression, "2026-01-01T00:00:00", len(runs)) == runs


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("0 25 * * *", "'25' at character 3 cannot be read as hour (field 2); allowed is 0-23"),
        ("1,2,77,4 * * * *", "'77' at character 5 cannot be read as minute (field 1)"),
        ("0 0 * foo *", "'foo' at character 7 cannot be read as month (field 4); allowed is 1-12 or JAN-DEC"),
        ("0 0 * * mon-", "'mon-' at character 9 cannot be read as day of week (field 5)"),
        ("  0   0 0 * *", "'0' at character 9 cannot be read as day of month (field 3)"),
        ("* * * * * 60", "'60' at character 11 cannot be read as second (field 6)"),
        ("5,,3 * * * *", "'' at character 3 cannot be read as minute"),
        ("*/0 * * * *", "'*/0' at character 1"),
        ("*/90 * * * *", "a step of 90 is longer than the field"),
        ("5-5 * * * *", "write 5"),
        ("R * * * *", "use jitter"),
        ("h/5 * * * *", "use jitter"),
        (
            "0 0 1,15w * *",
            "'1,15w' at character 5 cannot be read as day of month (field 3): its parts do not go together",
        ),
        ("0 0 31 2 *", "never comes"),
        ("0 0 30,31 2 *", "never comes"),
        ("* * * *", "has 4 fields"),
        ("* * * * * * 2030", "has 7 fields"),
        ("@reboot", "unknown"),
        ("@dayly", "did you mean @daily?"),
        ("", "give five fields"),
        ("  ", "give five fields"),
        (None, "give five fields"),
        (" ".join(["*"] * 200), "characters; at most 200"),
        ("1-99999999999999999999999999999 * * * *", "at character 1"),
        ("\u0661 * * * *", "at character 1"),
    ],
)
def test_a_fault_is_shown_where_it_is(expression: str, fault: str) -> None:
    with pytest.raises(SchedulerError) as raised:
        Cron(expression)
    assert fault in str(raised.value)


@given(st.text(alphabet="0123456789*/-,?lwLW#@hrHR() monfrijan\t\n\u00a0", max_size=60))
def test_no_text_does_worse_than_an_error(text: str) -> None:
    try:
        cron = Cron(text)
    except SchedulerError:
        return
    at = ms("2026-01-01T00:00:00")
    assert (cron.after(at) or 0) > at


@pytest.mark.parametrize(
    ("expression", "spring", "autumn"),
    [
        ("30 2 * * *", "3:00", "2:30"),
        ("0 2,3 * * *", "3:00", "2:00 3:00"),
        ("*/30 * * * *", "0:30 1:00 1:30 3:00 3:30 4:00", "0:30 1:00 1:30 2:00 2:30 2:00 2:30 3:00 3:30 4:00"),
        ("0 */4 * * *", "4:00", "4:00"),
        ("*/30 2 * * *", "3:00 3:30", "2:00 2:30 2:00 2:30"),
    ],
)
def test_the_nights_of_the_guide(expression: str, spring: str, autumn: str) -> None:
    def night(midnight: str, until: str) -> str:
        cron, at, found = Cron(expression, "Europe/Berlin"), ms(midnight), []
        while (at := cron.after(at) or 0) <= ms(until):
            found.append(f"{datetime.fromtimestamp(at / 1000, ZoneInfo('Europe/Berlin')):%-H:%M}")
        return " ".join(found)

    assert night("2026-03-28T23:00:00", "2026-03-29T02:00:00") == spring
    assert night("2026-10-24T22:00:00", "2026-10-25T03:00:00") == autumn


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_may_share_one() -> None:
    cron = Cron("*/7 * * * *", "Europe/Berlin")
    ask = [ms("2026-03-28T00:00:00") + n * 61_000 for n in range(2000)]
    alone = [Cron("*/7 * * * *", "Europe/Berlin").after(at) for at in ask[::100]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(cron.after, ask * 4))
    assert [together[n] for n in range(0, 2000, 100)] == alone
    assert together[:2000] == together[2000:4000] == together[4000:6000] == together[6000:]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("Paris", "did you mean Europe/Paris"),
        ("europe/paris", "did you mean Europe/Paris"),
        ("New York", "did you mean America/New_York"),
        ("Europe/Berlim", "did you mean Europe/Berlin"),
        ("nowhere at all", "give an IANA name"),
        ("../../etc/passwd", "unknown"),
        ("Europe", "unknown"),
        ("", "unknown"),
        ("x" * 5000, "unknown"),
    ],
)
def test_an_unknown_zone_names_the_nearest(name: str, advice: str) -> None:
    with pytest.raises(SchedulerError) as raised:
        zone(name)
    assert advice in str(raised.value)
    assert len(str(raised.value)) < 300


def test_the_end_of_calendars_is_the_end() -> None:
    assert Cron("0 0 1 1 *").after(ms("9999-06-01T00:00:00")) is None
    assert Cron("0 0 1 1 *", "Asia/Tokyo").after(ms("9999-12-31T23:00:00")) is None


# --- intervals and timetables -------------------------------------------------------------------------------------------


def test_an_interval_counts_from_its_anchor() -> None:
    assert Every(60_000).after(0) == 60_000
    assert Every(60_000).after(59_999) == 60_000
    assert Every(60_000).after(60_000) == 120_000
    assert Every(60_000, 7_000).after(0) == 7_000
    assert Every(60_000, 7_000).after(7_000) == 67_000


@given(st.integers(100, 10**9), st.integers(0, 2 * 10**12), st.integers(0, 2 * 10**12))
def test_an_interval_never_drifts(interval: int, anchor: int, at: int) -> None:
    tick = Every(interval, anchor).after(at)
    assert tick > at
    assert (tick - anchor) % interval == 0
    assert tick - at <= interval or at < anchor


@pytest.mark.parametrize("interval", [0, 0.05, -1, float("nan"), "60", None, True])
def test_impossible_intervals_are_refused(interval: object) -> None:
    with pytest.raises((SchedulerError, InvalidOption)):
        Every.of(interval)  # type: ignore[arg-type]


def test_start_and_until_bound_the_ticks() -> None:
    table = timetable(
        "s", expression="0 * * * *", start_ms=ms("2026-01-01T05:00:00"), until_ms=ms("2026-01-01T06:00:00")
    )
    first = table.after(0)
    assert first is not None
    assert first == ms("2026-01-01T05:00:00")
    assert table.after(first) == ms("2026-01-01T06:00:00")
    assert table.after(ms("2026-01-01T06:00:00")) is None


@given(st.text(min_size=1), st.integers(0, 2**45), st.integers(1, 86_400_000))
def test_jitter_is_the_same_for_all_and_within_bounds(name: str, tick: int, jitter: int) -> None:
    one = Timetable(name.encode(errors="replace").decode(), Every(1000), jitter_ms=jitter)
    assert 0 <= one.due(tick) - tick <= jitter
    assert one.due(tick) == Timetable(one.name, Every(1000), jitter_ms=jitter).due(tick)


def test_jitter_spreads() -> None:
    table = Timetable("s", Every(60_000), jitter_ms=10_000)
    assert len({table.due(n * 60_000) - n * 60_000 for n in range(50)}) > 40


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "either a cron expression or an interval"),
        ({"expression": "* * * * *", "interval_ms": 60_000}, "not both"),
        ({"interval_ms": 60_000, "jitter_ms": 60_000}, "less than the interval"),
        ({"expression": "* * * * *", "jitter_ms": -1}, "give 0 to 86400"),
        ({"expression": "* * * * *", "jitter_ms": 10**9}, "give 0 to 86400"),
        ({"expression": "* * * * *", "timezone": "Mars"}, "unknown"),
    ],
)
def test_impossible_timetables_are_refused(options: dict[str, object], why: str) -> None:
    with pytest.raises(SchedulerError, match=why):
        timetable("s", **options)  # type: ignore[arg-type]


# --- misfires -----------------------------------------------------------------------------------------------------------

HOUR = 3_600_000
HOURLY = Timetable("s", Every(HOUR))


def test_a_tick_within_its_grace_runs_whatever_the_policy() -> None:
    for policy in Misfire:
        assert step(HOURLY, HOUR, HOUR + 60_000, policy, 60_000) == Step(HOUR, 2 * HOUR, 0)


def test_late_ticks() -> None:
    now = 5 * HOUR + 60_001
    assert step(HOURLY, HOUR, now, Misfire.ALL, 60_000) == Step(HOUR, 2 * HOUR, 0)
    assert step(HOURLY, HOUR, now, Misfire.ONCE, 60_000) == Step(5 * HOUR, 6 * HOUR, 4)
    assert step(HOURLY, HOUR, now, Misfire.SKIP, 60_000) == Step(None, 6 * HOUR, 5)
    assert step(HOURLY, HOUR, now, Misfire.SKIP, 60_001) == Step(None, 5 * HOUR, 4)


def test_the_end_may_come_while_nobody_looks() -> None:
    table = Timetable("s", Every(HOUR), until_ms=3 * HOUR)
    now = 9 * HOUR
    assert step(table, HOUR, now, Misfire.SKIP, 0) == Step(None, None, 3)
    assert step(table, HOUR, now, Misfire.ONCE, 0) == Step(3 * HOUR, None, 2)
    assert step(table, 3 * HOUR, now, Misfire.ALL, 0) == Step(3 * HOUR, None, 0)


def test_a_long_absence_costs_little() -> None:
    table = timetable("s", expression="* * * * * *")
    now = ms("2026-01-01T00:00:00")
    first = ms("2016-01-01T00:00:00")
    assert step(table, first, now, Misfire.SKIP, 0) == Step(None, now, COUNTED)
    assert step(table, first, now, Misfire.ONCE, 0) == Step(now, now + 1000, COUNTED)


@given(
    st.integers(100, 100_000),
    st.integers(0, 300_000),
    st.integers(0, 60_000),
    st.integers(0, 90_000),
    st.sampled_from(Misfire),
)
def test_each_tick_is_run_or_counted_once(interval: int, absent: int, grace: int, jitter: int, policy: Misfire) -> None:
    """Followed until it has caught up: the ticks that ran and the missed ones are all there are."""
    table = Timetable("s", Every(interval), jitter_ms=min(jitter, interval - 1))
    expected: int | None = interval
    now = interval + table.jitter_ms + absent
    ran, missed, last = [], 0, 0
    while expected is not None and table.due(expected) <= now:
        done = step(table, expected, now, policy, grace)
        assert done.run is None or table.due(done.run) <= now
        assert done.next is None or done.next > expected
        ran += [] if done.run is None else [done.run]
        missed += done.missed
        last, expected = done.next or 0, done.next
    assert len(set(ran)) == len(ran)
    passed = last // interval - 1
    assert len(ran) + missed == passed or missed >= COUNTED
    if policy is Misfire.ALL:
        assert missed == 0


def test_ids_follow_from_schedule_and_tick() -> None:
    assert tick_id("a", 1) == tick_id("a", 1)
    assert len({tick_id("a", 1), tick_id("a", 2), tick_id("b", 1), tick_id("a 1", 1)}) == 4
    with pytest.raises(SchedulerError, match="skip, once, all"):
        Misfire.of("never")
