"""Makes the README's picture of what a command printed: ``rf-jobs demo --seconds 15 | python -m docs.picture demo``."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 118


def main() -> None:
    """From standard input to ``docs/pictures/<name>.svg``."""
    name = sys.argv[1]
    said = re.sub(r"unix:///\S+/\.rf-jobs", "unix:///…/.rf-jobs", sys.stdin.read())
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    for line in said.splitlines():
        style = "green" if line.startswith("ok ") else "dim" if "  ready " in line else ""
        console.print(Text(line, style=style))
    console.save_svg(str(Path(__file__).parent / "pictures" / f"{name}.svg"), title=f"rf-jobs {name}")


if __name__ == "__main__":
    main()
