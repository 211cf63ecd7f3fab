"""How a supervised worker process gives its metrics to the one that shows those of all its siblings.

On a socket in a folder that only their user may enter: whoever connects gets everything as it is now, one MessagePack
document. When a process ends in order it leaves its last counts in a file beside, so that no sum ever falls.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from rf_jobs.telemetry.cells import Counter, Histogram, MetricStore

log = logging.getLogger("rf_jobs.telemetry")
LAST = ".last"
"""Ends the name of the file that a process leaves."""
SEND_SECONDS = 5.0


class SharedReading(msgspec.Struct, array_like=True):
    """One series; as ``exposition.Reading``, with the metric's name."""

    name: str
    values: tuple[str, ...]
    value: float
    buckets: dict[float, float]
    exemplars: dict[float, tuple[float, str, float]]


class Shared(msgspec.Struct):
    """What a process gives."""

    ours: list[SharedReading]
    server: str = ""
    """The server's version."""
    others: bytes = b""
    """The text exposition of prometheus_client's own registry: the process, the garbage collector, the application's."""


class Share:
    """Gives from ``start`` to ``aclose``."""

    def __init__(self, cells: MetricStore, path: str, server: Callable[[], str]) -> None:
        self._cells = cells
        self._version = server
        self._path = path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises ``OSError`` where the folder is gone."""
        opening = asyncio.start_unix_server(self._connected, self._path)
        # An empty context: requests are answered for as long as the process lives, outside anybody's span.
        self._server = await asyncio.create_task(opening, context=contextvars.Context())

    async def aclose(self) -> None:
        """Stop, and leave the last counts."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):  # the supervisor is gone, and its folder with it
            self._leave(Path(self._path))

    def _leave(self, path: Path) -> None:
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(Shared(list(_readings(self._cells)))))
        part.rename(path.with_name(path.name + LAST))
        path.unlink(missing_ok=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(SEND_SECONDS):
                writer.write(await asyncio.to_thread(self._everything))
                await writer.drain()
        except (TimeoutError, ConnectionError):
            log.debug("whoever asked for metrics went away")
        except Exception:
            log.exception("metrics could not be given")
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    def _everything(self) -> bytes:
        # At the first request: a worker that nobody asks never loads it.
        from prometheus_client import REGISTRY, generate_latest  # noqa: PLC0415

        return msgspec.msgpack.encode(Shared(list(_readings(self._cells)), self._version(), generate_latest(REGISTRY)))


def _readings(cells: MetricStore) -> Iterable[SharedReading]:
    for metric, values, cell in cells.cells():
        if isinstance(cell, Histogram):
            bounds = (*cell.bounds, float("inf"))
            counts = dict(zip(bounds, map(float, cell.counts), strict=True))
            exemplars = {bound: each for bound, each in zip(bounds, cell.exemplars, strict=True) if each is not None}
            yield SharedReading(metric.name, values, cell.sum, counts, exemplars)
        else:
            exemplar = cell.exemplar if isinstance(cell, Counter) else None
            yield SharedReading(metric.name, values, cell.value, {}, {float("inf"): exemplar} if exemplar else {})
