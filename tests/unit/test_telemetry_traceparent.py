from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rf_jobs.telemetry.sampling import Sampling
from rf_jobs.telemetry.traceparent import attempt_ids, is_sampled, parse, text_of

ids = st.integers(1, 2**128 - 1)
spans = st.integers(1, 2**64 - 1)
flags = st.integers(0, 255)


@given(ids, spans, flags)
def test_written_and_read_back(trace_id: int, span_id: int, flag: int) -> None:
    text = text_of(trace_id, span_id, flag)
    assert len(text) == 55
    found = parse(text)
    assert found is not None
    assert found == (trace_id, span_id, flag)
    assert found.sampled is is_sampled(text) is bool(flag & 1)


@given(st.text() | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{30,34}-[0-9a-f]{14,18}-[0-9a-f]{2}(-x)?", fullmatch=True))
def test_anything_may_stand_in_an_envelope(text: str) -> None:
    found = parse(text)
    if found is not None:
        assert 0 < found.trace_id < 2**128
        assert 0 < found.span_id < 2**64


def test_what_is_none() -> None:
    good = text_of(1, 1, 1)
    bad = [
        good.upper().replace("0", "A"),
        "ff" + good[2:],
        good + "-more",
        good[:-1],
        text_of(0, 1, 1),
        text_of(1, 0, 1),
        "",
    ]
    assert [parse(text) for text in bad] == [None] * len(bad)
    assert parse("01" + good[2:] + "-more") == (1, 1, 1), "a later version may say more"


@given(st.text(), st.text())
def test_an_attempts_ids_follow_from_its_lease(job_id: str, token: str) -> None:
    job_id, token = (text.encode("utf-8", "replace").decode() for text in (job_id, token))
    first = attempt_ids(job_id, token)
    assert first == attempt_ids(job_id, token)
    assert len(first) == 48
    assert first != attempt_ids(job_id, token + "x")


def test_the_share_of_traces() -> None:
    kept = sum(Sampling(0.25, 1).keeps(int(attempt_ids(str(n), "")[:32], 16)) for n in range(4000))
    assert 850 < kept < 1150
    assert not any(Sampling(0.0, 1).keeps(2**k - 1) for k in range(129))
    assert all(Sampling(1.0, 1).keeps(2**k - 1) for k in range(129))


def test_spans_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("rf_jobs.telemetry.sampling.mono", lambda: now)

    def room() -> int:
        return sum(sampling.take() for _ in range(1000))

    sampling = Sampling(1.0, 100)
    assert room() == 100
    now += 0.5
    assert room() == 50
    now += 60
    assert room() == 100, "what was not used does not pile up"
    for _ in range(20):
        sampling.force()
    now += 0.5
    assert room() == 30, "forced spans are missing for the others"
    assert not Sampling(1.0, 0).take()
