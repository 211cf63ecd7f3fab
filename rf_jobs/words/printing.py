"""Text from elsewhere on a terminal or in a log."""

from __future__ import annotations


def clean(text: str, *, lines: bool = False) -> str:
    """The text without what a terminal would obey, and, unless ``lines``, without line breaks: escaped as in Python."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(c if c.isprintable() or c in kept else c.encode("unicode_escape").decode("ascii") for c in text)
