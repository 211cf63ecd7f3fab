"""A page that is drawn again and again on a terminal, until somebody has seen enough."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
"""The other screen, without a cursor; what is too long for a line is cut."""
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
ENDS = (signal.SIGINT, signal.SIGTERM)


def is_terminal() -> bool:
    """Whether there is one to draw on."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class Enough:
    """Says when somebody has: at Ctrl-C, SIGTERM, or the key ``q``. Use it on the running loop, within ``heard``."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @contextmanager
    def heard(self, *, keys: bool) -> Generator[None]:
        """Listen; with ``keys`` to the keyboard too, as far as there is one."""
        loop = asyncio.get_running_loop()
        for number in ENDS:
            loop.add_signal_handler(number, self._event.set)
        try:
            if keys and sys.stdin.isatty():
                with _each_key():
                    loop.add_reader(sys.stdin.fileno(), self._read)
                    try:
                        yield
                    finally:
                        loop.remove_reader(sys.stdin.fileno())
            else:
                yield
        finally:
            for number in ENDS:
                loop.remove_signal_handler(number)

    def _read(self) -> None:
        typed = os.read(sys.stdin.fileno(), 64)
        if not typed or b"q" in typed.lower():
            self._event.set()

    async def within(self, seconds: float) -> bool:
        """Wait so long; whether somebody has enough."""
        try:
            async with asyncio.timeout(seconds):
                await self._event.wait()
        except TimeoutError:
            return False
        return True

    async def unless(self, work: Awaitable[T]) -> T | None:
        """What ``work`` answers, or None as soon as somebody has enough."""
        doing = asyncio.ensure_future(work)
        enough = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({doing, enough}, return_when=asyncio.FIRST_COMPLETED)
            return await doing if doing.done() else None
        finally:
            for task in (doing, enough):
                task.cancel()
            await asyncio.gather(doing, enough, return_exceptions=True)


@contextmanager
def _each_key() -> Generator[None]:
    """Keys arrive as they are typed, and are not shown."""
    import termios  # noqa: PLC0415 (Windows has none, nor such a terminal)
    import tty  # noqa: PLC0415

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def screen() -> Generator[None]:
    """The terminal's other screen; what was there before comes back at the end."""
    _put(_ENTER)
    try:
        yield
    finally:
        _put(_LEAVE)


def height() -> int:
    """Lines that fit."""
    return shutil.get_terminal_size().lines


def draw(lines: Sequence[str]) -> None:
    """The whole page; lines below what fits are left out."""
    _put("\x1b[H" + "\x1b[K\n".join(lines[: height()]) + "\x1b[K\x1b[J")


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """How many lines each part gets of ``room``: the same for all; what one does not need goes to the first that does."""
    each = max(room, 0) // len(sizes)
    given = [min(size, each) for size in sizes]
    left = max(room, 0) - sum(given)
    for at, size in enumerate(sizes):
        more = min(size - given[at], left)
        given[at] += more
        left -= more
    return given
