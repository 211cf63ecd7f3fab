"""Sets of queues: how they are written, in a file or in one line of text, and what is wrong with one that does not fit.

As text, for a variable or an option: ``mail: queues=emails,sms processes=1 workers=8``, several with ``;`` between them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import msgspec

from rf_jobs.words.config_settings import WorkerSet
from rf_jobs.words.ids import queue_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_KEYS = tuple(field.name for field in fields(WorkerSet))
MAX_PROCESSES = 1_000


def read_sets(value: object) -> tuple[WorkerSet, ...]:
    """Sets from text, from tables of a file, or as they are; raises ``ValueError`` with what is wrong with which."""
    if isinstance(value, str):
        value = [_from_text(part) for part in value.split(";") if part.strip()]
    if not isinstance(value, Sequence):
        raise ValueError("it is no list of sets")  # noqa: TRY004 (a ValueError becomes the message of the setting)
    found = tuple(_set(each) for each in value)
    names = [each.name for each in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two sets are called {name!r}")
    if sum(each.processes or 1 for each in found) > MAX_PROCESSES:
        raise ValueError(f"these are more than {MAX_PROCESSES} processes")
    return found


def sets_as_text(sets: Sequence[WorkerSet]) -> str:
    """Sets as ``read_sets`` reads them from text."""
    return "; ".join(_as_text(each) for each in sets)


def _as_text(each: WorkerSet) -> str:
    named = isinstance(each.queues, Mapping)
    queues = [f"{name}={weight}" for name, weight in each.queues.items()] if isinstance(each.queues, Mapping) else []
    words = [f"queues={','.join(queues if named else each.queues)}"]
    numbers = {name: getattr(each, name) for name in _KEYS if name not in ("name", "queues")}
    words += [f"{name}={number}" for name, number in numbers.items() if number is not None]
    return f"{each.name}: {' '.join(words)}"


def _from_text(text: str) -> dict[str, object]:
    name, colon, rest = text.partition(":")
    if not colon:
        raise ValueError(f"{text.strip()!r} has no name; write it as mail: queues=emails,sms workers=8")
    found: dict[str, object] = {"name": name.strip()}
    for word in rest.split():
        key, sign, value = word.partition("=")
        if not sign or not value:
            raise ValueError(f"in set {name.strip()!r} the word {word!r} is no key=value")
        if key in found:
            raise ValueError(f"set {name.strip()!r} has {key} twice")
        found[key] = _queues(value) if key == "queues" else value
    return found


def _queues(text: str) -> object:
    items = [item for item in text.split(",") if item]
    if not any("=" in item for item in items):
        return items
    pairs = [item.partition("=") for item in items]
    if not all(weight.isdecimal() for _, _, weight in pairs):
        raise ValueError(f"{text!r} has weights for some queues only, or a weight that is no whole number")
    return {name: int(weight) for name, _, weight in pairs}


def _set(value: object) -> WorkerSet:
    given = msgspec.to_builtins(value) if isinstance(value, WorkerSet) else value
    if not isinstance(given, Mapping):
        raise ValueError(f"a set is {given!r}; it needs a name and queues")  # noqa: TRY004 (likewise)
    name = given.get("name")
    if not isinstance(name, str) or not _NAME.match(name):
        raise ValueError(f"the name of a set is {name!r}; use letters, digits, _ . and -, up to 64")
    for key in given:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_KEYS)}"
            raise ValueError(f"set {name!r} has the unknown key {key!r}; {hint}")
    return WorkerSet(name=name, queues=_checked_queues(name, given.get("queues")), **_numbers(name, given))


def _checked_queues(name: str, queues: object) -> tuple[str, ...] | dict[str, int]:
    if isinstance(queues, str) or not isinstance(queues, (Sequence, Mapping)) or not queues:
        raise ValueError(f"set {name!r} names no queues; give a list of names, or weights")
    for queue in queues:
        queue_name(queue)
    if not isinstance(queues, Mapping):
        if len(set(queues)) != len(queues):
            raise ValueError(f"set {name!r} names a queue twice")
        return tuple(queues)
    if any(type(weight) is not int or weight < 1 for weight in queues.values()):
        raise ValueError(f"set {name!r} has a weight that is less than 1, or no whole number")
    return dict(queues)


def _numbers(name: str, given: Mapping[str, object]) -> dict[str, Any]:
    found = {}
    for key in _KEYS:
        value = given.get(key)
        if key in ("name", "queues") or value is None:
            continue
        number = int(value) if isinstance(value, str) and value.isdecimal() else value
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ValueError(f"set {name!r} has {key} = {value!r}; it must be a whole number from 1")
        found[key] = number
    return found
