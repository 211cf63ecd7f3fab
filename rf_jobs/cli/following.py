"""For processes that ``dev`` and ``demo`` start: ending when those are gone, however they went."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
LOOK_SECONDS = 1.0


def exit_with_parent(function: F) -> F:
    """--exit-with-parent PID, the process that starts this one; the command gets it as ``parent``. For our own use."""
    return click.option("--exit-with-parent", "parent", type=int, hidden=True)(function)


def follow(parent: int | None) -> None:
    """From now on, end in order (SIGTERM) when the process ``parent`` is no longer our parent; None: do not.

    By a timer, whose signal asks once a second: a supervisor must not have a thread, and its children, which inherit the
    handler, have no timer. Call it from the main thread.
    """
    if parent is None:
        return
    own = os.getpid()

    def look(*_: object) -> None:
        if os.getpid() == own and os.getppid() != parent:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(own, signal.SIGTERM)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, LOOK_SECONDS, LOOK_SECONDS)


def hang_up_is_sigterm() -> None:
    """Let SIGHUP (the terminal was closed) end this process as SIGTERM does, and its forked children with it, not before
    it. Left alone where it is ignored, as by nohup."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return
    own = os.getpid()

    def pass_on(*_: object) -> None:
        if os.getpid() == own:
            os.kill(own, signal.SIGTERM)

    signal.signal(signal.SIGHUP, pass_on)
