"""Numbers, times and foreign text, for people."""

from __future__ import annotations

from datetime import UTC, datetime

from rf_jobs.words.printing import clean

NOTHING = "-"
_LADDER = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float | None) -> str:
    """``340 ms``, ``5.2 s``, ``3 m 20 s``, ``2 d 4 h``."""
    if seconds is None:
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds > 0 else "0 s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    parts: list[str] = []
    rest = round(seconds)
    for unit, length in _LADDER:
        count, rest = divmod(rest, length)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if not part.startswith("0 "))


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """``3 m 20 s ago``, ``in 5.0 s``."""
    if moment is None:
        return NOTHING
    passed = ((now or datetime.now(UTC)) - moment).total_seconds()
    return f"{duration(passed)} ago" if passed >= 0 else f"in {duration(-passed)}"


def when(moment: datetime | None, now: datetime | None = None) -> str:
    """Local time, and how long ago that was."""
    if moment is None:
        return NOTHING
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S} ({ago(moment, now)})"


def size(count: float) -> str:
    """``212 B``, ``1.5 KiB``."""
    for unit in _SIZES:
        if count < 1024 or unit == _SIZES[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return NOTHING


def number(count: float) -> str:
    """``12,345``."""
    return f"{count:,.0f}"


def short(text: str, length: int = 60) -> str:
    """The beginning, on one line."""
    line = clean(" ".join(text.split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def class_name(name: str) -> str:
    """A job class's own name, without the module; damaged envelopes have none."""
    return clean(name.rpartition(":")[2]) or "?"
