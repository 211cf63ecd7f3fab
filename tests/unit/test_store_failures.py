"""What an error of the connection means, and what is said of it."""

from __future__ import annotations

import pytest
from redis import exceptions as rx

from rf_jobs.store.failures import Failure, explain, kind


@pytest.mark.parametrize(
    "error",
    [
        rx.AuthenticationError("Authentication required."),
        rx.ConnectionError("Authentication required."),
        rx.ConnectionError("NOAUTH Authentication required."),
        rx.ResponseError("NOAUTH Authentication required."),
    ],
    ids=repr,
)
def test_a_server_that_wants_a_password_is_no_silent_one(error: Exception) -> None:
    assert kind(error) is Failure.DENIED
    said = str(explain(error, "redis://h:6379/0", "connect"))
    assert "the server at redis://h:6379/0 refused us" in said
    assert "it wants a password: give it in redis_url, as redis://:PASSWORD@HOST:PORT/0" in said


@pytest.mark.parametrize(
    "error",
    [
        rx.AuthenticationError("invalid username-password pair or user is disabled."),
        rx.ConnectionError("WRONGPASS invalid username-password pair"),
        rx.NoPermissionError("this user has no permissions to run the 'eval' command"),
    ],
    ids=repr,
)
def test_a_refusal_says_what_to_check(error: Exception) -> None:
    assert kind(error) is Failure.DENIED
    said = str(explain(error, "redis://h:6379/0", "connect"))
    assert said.endswith("check the user and the password in redis_url, and what the server's ACL allows that user")


def test_silence_stays_silence() -> None:
    assert kind(rx.ConnectionError("Connection refused")) is Failure.LOST
    assert "is it running" in str(explain(rx.ConnectionError("Connection refused"), "redis://h", "connect"))
