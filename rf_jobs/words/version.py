"""Which version this is."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def package_version() -> str:
    """This package's version; '0' where it runs from a tree that is not installed."""
    try:
        return version("rf-jobs")
    except PackageNotFoundError:
        return "0"
