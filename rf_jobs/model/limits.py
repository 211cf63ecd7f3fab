"""What a job's class says of limits, turns and uniqueness, worked out for one job.

A limit is referred to by its name, or ``name/key``. A class's own: ``<class>`` for its concurrency, ``<class>:rate`` for its rate.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from rf_jobs.model.jobclass import JobClass
from rf_jobs.words.errors import InvalidOption
from rf_jobs.words.limits import at_least_one, plain
from rf_jobs.words.options import JobOptions

Definitions = dict[str, dict[str, str]]


def check(cls: type[Any], options: JobOptions, fields: list[str]) -> None:
    """Refuse keys that name nothing of the class."""
    named = {
        "concurrency_key": options.concurrency_key,
        "fair_key": options.fair_key,
        "fair_weight": options.fair_weight if isinstance(options.fair_weight, str) else None,
        "the key of rate": options.rate.key if options.rate is not None else None,
        **{f"unique_by[{at}]": name for at, name in enumerate(options.unique_by)},
    }
    for what, name in named.items():
        if name is not None and not _says(cls, fields, name):
            raise InvalidOption(
                f"class {cls.__qualname__}: {what} is {name!r}, which is no field or property of it; it has {', '.join(fields) or 'none'}"
            )
    if options.concurrency_key is not None and options.concurrency is None:
        raise InvalidOption(f"class {cls.__qualname__} has a concurrency_key, but no concurrency")


def check_unique_by(cls: type[Any], names: list[Any]) -> None:
    """Refuse what a dispatch says of uniqueness and what the class does not have."""
    fields = [field.name for field in dataclasses.fields(cls)]
    for name in names:
        if not _says(cls, fields, name):
            raise InvalidOption(
                f"by is {name!r}, which is no field or property of {cls.__qualname__}; it has {', '.join(fields) or 'none'}"
            )


def _says(cls: type[Any], fields: list[str], name: object) -> bool:
    return isinstance(name, str) and (name in fields or isinstance(getattr(cls, name, None), property))


def links_of(entry: JobClass, job: Any) -> str:
    """The job's limits and its turn, as the store takes them: words, each with a blank before it."""
    options = entry.options
    words: list[str] = []
    concurrency, rates = own_names(entry)
    if options.concurrency is not None:
        words.append(" l" + _ref(concurrency, job, options.concurrency_key))
    if options.rate is not None:
        words.append(" l" + _ref(rates, job, options.rate.key))
    words += [f" l{limit}" for limit in options.limits]
    if options.fair_key is not None:
        weight = options.fair_weight
        if isinstance(weight, str):
            weight = at_least_one(getattr(job, weight), f"fair_weight of {entry.name}")
        words.append(f" f{weight}:{plain(getattr(job, options.fair_key))}")
    return "".join(words)


def _ref(name: str, job: Any, key: str | None) -> str:
    return name if key is None else f"{name}/{plain(getattr(job, key))}"


def own_names(entry: JobClass) -> tuple[str, str]:
    """The names of the class's own limits: of its concurrency, of its rate."""
    name = plain(entry.name)
    return name, f"{name}:rate"


def check_names(entry: JobClass) -> None:
    """Refuse a shared limit that has the name of one of the class's own."""
    for limit in entry.options.limits:
        if limit in own_names(entry):
            raise InvalidOption(
                f"class {entry.name}: limits names {limit!r}, which is the class's own limit; choose another name"
            )


def definitions(entry: JobClass) -> Definitions:
    """The limits that the class defines, as the store keeps them."""
    options = entry.options
    concurrency, rates = own_names(entry)
    found: Definitions = {}
    if options.concurrency is not None:
        found[concurrency] = {"c": str(options.concurrency)}
    if options.rate is not None:
        rate = options.rate
        found[rates] = {"r": str(rate.limit), "p": str(rate.per_ms), "a": rate.algorithm}
    return found


def unique_digest(entry: JobClass, job: Any, payload: bytes, fields: tuple[str, ...]) -> str:
    """What two jobs have in common that are the same: the class, and what ``unique_key()`` says, else the chosen fields, else
    all of the payload."""
    key = job.unique_key() if "unique_key" in entry.dynamic else None
    if key is None and fields:
        key = repr([(name, getattr(job, name)) for name in fields])
    what = payload if key is None else str(key).encode("utf-8", "surrogatepass")
    return hashlib.sha256(entry.name.encode() + b"\0" + what).hexdigest()[:32]
