"""Writing what a person asked for, where they said."""

from __future__ import annotations

import os
from pathlib import Path

from rf_jobs.words.errors import InvalidOption


def write(path: Path, text: str) -> None:
    """Write a file, or over it. Raises ``InvalidOption`` where that is not possible."""
    if not path.parent.is_dir():
        raise InvalidOption(f"--out: there is no folder {str(path.parent)!r} for {path.name!r}; make it first")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise InvalidOption(f"--out: {str(path)!r} cannot be written ({why}); name a file that can be") from None
