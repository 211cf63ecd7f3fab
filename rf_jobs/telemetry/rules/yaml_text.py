"""Plain data as YAML, as far as a rule file needs it: PyYAML is nothing that an installation has to have."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_\-]*(:[A-Za-z0-9_\-]+)*\Z")
_OTHERS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "none", "y", "n"})
"""Words that some reader of YAML does not take for text."""
_STEP = "  "


def yaml_text(content: Mapping[str, Any]) -> str:
    """The text: keys in their order, lists indented under their key, one line for each value."""
    return "".join(f"{line}\n" for line in _lines(content, ""))


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if _is_nested(inner):
                yield f"{indent}{_scalar(name)}:"
                yield from _lines(inner, indent + _STEP)
            else:
                yield f"{indent}{_scalar(name)}: {_scalar(inner)}"
        return
    for item in value:
        first, *rest = _lines(item, indent + _STEP) if _is_nested(item) else [indent + _STEP + _scalar(item)]
        yield f"{indent}- {first.removeprefix(indent + _STEP)}"
        yield from rest


def _is_nested(value: Any) -> bool:
    return isinstance(value, (Mapping, Sequence)) and not isinstance(value, str) and bool(value)


def _scalar(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        return json.dumps(value)  # which YAML reads too
    if _PLAIN.match(value) and value.lower() not in _OTHERS:
        return value
    return "'" + value.replace("'", "''") + "'"
