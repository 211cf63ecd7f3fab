"""What a failed round trip means: which errors are worth sending the same call again for, and which are final."""

from __future__ import annotations

from enum import Enum

from redis import exceptions as rx

from rf_jobs.words.errors import BackendError

_TRANSIENT = (
    "LOADING",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "BUSY",
    "UNBLOCKED",
    "NOREPLICAS",
    "MOVED",
    "ASK",
)

_REFUSED = ("NOAUTH", "Authentication required", "WRONGPASS", "invalid username-password")
"""What a server says to a stranger; clients and proxies hand it on as an error of the connection too."""


class Failure(Enum):
    """Kinds of failure."""

    LOST = "connection"
    """No reply: the call may or may not have run. All calls are safe to send again."""
    TRANSIENT = "transient"
    """The server can't now: it loads, fails over, is busy."""
    NO_SCRIPT = "noscript"
    FULL = "oom"
    DENIED = "denied"
    WRONG = "error"


def kind(error: BaseException) -> Failure:
    """The kind of an error that redis-py raised."""
    message = str(error)
    if isinstance(error, rx.NoScriptError) or "NOSCRIPT" in message[:40]:
        return Failure.NO_SCRIPT
    denied = isinstance(error, (rx.AuthenticationError, rx.AuthorizationError, rx.NoPermissionError))
    if denied or any(words in message for words in _REFUSED):
        return Failure.DENIED
    if isinstance(
        error, (rx.BusyLoadingError, rx.ReadOnlyError, rx.TryAgainError, rx.ClusterDownError, rx.MasterDownError)
    ):
        return Failure.TRANSIENT
    if isinstance(error, (rx.ConnectionError, rx.TimeoutError, OSError, EOFError)):
        return Failure.LOST
    if isinstance(error, rx.OutOfMemoryError) or message.startswith("OOM"):
        return Failure.FULL
    if message.startswith(_TRANSIENT):
        return Failure.TRANSIENT
    return Failure.WRONG


def explain(error: BaseException, url: str, op: str) -> BackendError:
    """The error to raise when trying again is pointless or was not enough. ``url`` comes without its password."""
    what = kind(error)
    if what is Failure.DENIED:
        return BackendError(f"{op}: the server at {url} refused us: {error}; {_denied_hint(str(error))}")
    if what is Failure.FULL:
        hint = "raise maxmemory, let the workers drain, or lower the retention"
        return BackendError(f"{op}: the server at {url} is out of memory and takes no more jobs: {error}; {hint}")
    if what is Failure.LOST:
        hint = "is it running, and is redis_url right?"
        return BackendError(f"{op}: no answer from the server at {url}: {str(error) or type(error).__name__}; {hint}")
    if what is Failure.TRANSIENT:
        return BackendError(f"{op}: the server at {url} cannot serve now: {error}; it may be failing over, try again")
    return BackendError(f"{op}: the server at {url} answered with an error: {error}")


def unusable(error: Exception, op: str) -> BackendError:
    """The error to raise for a call that cannot be put on the wire, or whose reply makes no sense."""
    return BackendError(
        f"{op}: what was to be sent, or what came back, cannot be used: {type(error).__name__}: {error}"
    )


def blames_the_call(error: BaseException) -> bool:
    """Whether the fault may be in what was sent, rather than in a server that is full, refuses us or fails over. A connection
    that was lost may mean either: a server hangs up on what is too large for it."""
    return kind(error.__cause__ or error) in (Failure.LOST, Failure.WRONG)


def _denied_hint(message: str) -> str:
    if any(words in message for words in _REFUSED[:2]):
        return (
            "it wants a password: give it in redis_url, as redis://:PASSWORD@HOST:PORT/0 or redis://USER:PASSWORD@..."
        )
    return "check the user and the password in redis_url, and what the server's ACL allows that user"
