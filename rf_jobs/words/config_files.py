"""Where settings are written down: the file, found and flattened, and the environment's variables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from rf_jobs.words.config_keys import KEYS, PREFIX, TABLES, VARIABLES, Key, did_you_mean, hint_for
from rf_jobs.words.config_values import shown
from rf_jobs.words.errors import ConfigError

FILE_VARIABLE = f"{PREFIX}CONFIG"
"""Names the file, as the argument ``--config`` does."""

# Those of the tests and benchmarks, and the exporter's token: a secret has no key in a file.
_FOREIGN = re.compile(rf"{PREFIX}((TEST|BENCH)_\w+|EXPORTER_TOKEN)\Z")
# What Kubernetes sets in every pod for a service called rf-jobs or rf-jobs-exporter.
_SERVICE_LINK = re.compile(rf"{PREFIX}(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)\Z")
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Source:
    """A file and the tables in it that are ours."""

    path: Path
    tables: Mapping[str, object]
    prefix: str = ""

    def values(self) -> Iterator[tuple[Key, object]]:
        """Each key with its value; raises ``ConfigError`` for one that is not known."""
        for name in self.tables:
            if name != "jobs":
                known = [f"{self.prefix}{table}" for table in TABLES]
                raise ConfigError(
                    f"{self.path} has the unknown table [{self.prefix}{name}]; {did_you_mean(f'jobs.{name}', known)}"
                )
        yield from self._table("jobs", self.tables.get("jobs", {}))

    def _table(self, table: str, content: object) -> Iterator[tuple[Key, object]]:
        if not isinstance(content, dict):
            raise ConfigError(f"{table} in {self.path} is {shown(content)}; expected the table [{self.prefix}{table}]")
        for name, value in cast("dict[str, object]", content).items():
            path = f"{table}.{name}"
            if path in TABLES:
                yield from self._table(path, value)
            elif path in KEYS:
                yield KEYS[path], value
            elif isinstance(value, dict):
                known = [f"{self.prefix}{known}" for known in TABLES]
                hint = did_you_mean(f"{self.prefix}{path}", known)
                raise ConfigError(f"{self.path} has the unknown table [{self.prefix}{path}]; {hint}")
            else:
                raise ConfigError(
                    f"{self.path} has the unknown key {name!r} in [{self.prefix}{table}]; {hint_for(table, name)}"
                )


def find_source(path: Path | None, environ: Mapping[str, str]) -> Source | None:
    """The file to read: the one that is named, else the first that is there, in the working directory.

    Raises ``ConfigError`` where a named file is missing, or where the file cannot be read.
    """
    if path is None and environ.get(FILE_VARIABLE):
        path = Path(environ[FILE_VARIABLE])
    if path is not None:
        if not path.is_file():
            raise ConfigError(f"the config file {str(path)!r} is missing; name an existing one, or leave it out")
        return _pyproject(path) if path.name == "pyproject.toml" else Source(path, _read(path))
    return _search(Path.cwd())


def _search(directory: Path) -> Source | None:
    own = directory / "rf-jobs.toml"
    if own.is_file():
        return Source(own, _read(own))
    shared = directory / "config" / "default.toml"
    if shared.is_file():
        tables = _read(shared)
        # The file may be the application's own, with tables of its own beside ours.
        if "jobs" in tables:
            return Source(shared, {"jobs": tables["jobs"]})
    project = directory / "pyproject.toml"
    return _pyproject(project) if project.is_file() else None


def _pyproject(path: Path) -> Source | None:
    tool = _read(path).get("tool")
    tables = cast("dict[str, object]", tool).get("rf-jobs") if isinstance(tool, dict) else None
    if tables is None:
        return None
    if not isinstance(tables, dict):
        raise ConfigError(f"tool.rf-jobs in {path} is {shown(tables)}; expected tables such as [tool.rf-jobs.jobs]")
    return Source(path, cast("dict[str, object]", tables), "tool.rf-jobs.")


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def from_environ(environ: Mapping[str, str]) -> Iterator[tuple[Key, str]]:
    """Each ``RF_JOBS_*`` variable that sets a key; raises ``ConfigError`` for an unknown one."""
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name == FILE_VARIABLE or _is_foreign(name, value):
            continue
        if name not in VARIABLES:
            hint = did_you_mean(name, VARIABLES)
            raise ConfigError(f"the environment has the unknown variable {name}; {hint}")
        yield VARIABLES[name], value


def _is_foreign(name: str, value: str) -> bool:
    if _FOREIGN.match(name) or _SERVICE_LINK.match(name):
        return True
    return name.endswith("_PORT") and _SERVICE_URL.match(value) is not None
