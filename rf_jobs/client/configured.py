"""What settings name and a process has to import: ``module:name`` of an object, or of what makes one."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from rf_jobs.model.middleware import Middleware
from rf_jobs.words.config_settings import JobsSettings
from rf_jobs.words.errors import ConfigError


def imported(setting: str, path: str) -> Any:
    """The object; a class or a function is called. Raises ``ConfigError``."""
    module, _, name = path.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
        return found() if inspect.isroutine(found) or inspect.isclass(found) else found
    except Exception as error:  # the user's module may raise anything
        raise ConfigError(f"{setting} is {path!r}, which can't be had: {error!r}") from error


def middleware_of(jobs: JobsSettings) -> list[Middleware]:
    """The middlewares that the settings name, the first outermost. Raises ``ConfigError``."""
    layers = [(path, imported("middleware", path)) for path in jobs.middleware]
    for path, layer in layers:
        if not isinstance(layer, Middleware):
            raise ConfigError(f"middleware is {path!r}: {layer!r} is no Middleware, nor makes one")
    return [layer for _, layer in layers]
