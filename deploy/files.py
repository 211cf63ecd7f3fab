"""Writing generated files, or checking that the committed ones are what the code makes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]


class _Dumper(yaml.SafeDumper):
    """Long expressions stay on one line; lists stand under their key, indented."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def yaml_text(content: Mapping[str, Any], source: str) -> str:
    """YAML under a line that says where it comes from."""
    head = f"# Made from {source} by `python -m deploy.generate`; edit that, not this.\n"
    return head + yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def stale(made: Mapping[Path, str], root: Path = ROOT) -> list[Path]:
    """Those files that are missing or differ from what the code makes."""
    return [path for path, text in made.items() if not (root / path).is_file() or (root / path).read_text() != text]


def write(made: Mapping[Path, str], root: Path) -> list[Path]:
    """Write what differs; the answer says which."""
    changed = stale(made, root)
    for path in changed:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(made[path])
    return changed


def run(about: str, files: Callable[[str], Mapping[Path, str]], argv: list[str] | None = None) -> int:
    """The command line of a generator."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is not up to date")
    parser.add_argument("--namespace", default="", help="the prefix of all metrics, as in [jobs.telemetry]")
    parser.add_argument("--into", type=Path, default=ROOT, help="the folder to write to (default: the project)")
    given = parser.parse_args(argv)
    made = files(given.namespace)
    if given.check:
        wrong = stale(made, given.into)
        for path in wrong:
            sys.stderr.write(f"{path} is not what the code makes; run python -m deploy.generate\n")
        return 1 if wrong else 0
    changed = write(made, given.into)
    for path in changed:
        sys.stdout.write(f"wrote {path}\n")
    sys.stdout.write(f"{len(made)} generated files, {len(changed)} changed\n")
    return 0
