"""Metrics and probes of workers over HTTP: ``/metrics``, ``/healthz``, ``/readyz``.

A few lines on asyncio's streams and not a framework: aiohttp would cost every worker process 13 MB of the 50 that it may
take (docs/decisions/0003-worker-http.md). GET and HEAD only; one request for each connection; bounded in size, time and
number.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any

from rf_jobs.words.errors import WorkerError

log = logging.getLogger("rf_jobs.telemetry")
MAX_HEAD_BYTES = 8_192
MAX_CONNECTIONS = 32
REQUEST_SECONDS = 5.0
RESPONSE_SECONDS = 20.0
LINGER_SECONDS = 1.0
MAX_LINGER_READS = 64
TEXT = "text/plain; charset=utf-8"

Render = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From an Accept header to a body and its content type. Called for one request at a time."""


def _alive() -> str:
    return ""


class Probes:
    """Serves from ``start`` or ``serve`` to ``aclose``. ``stalled`` says why nobody is ready, '' while it is so; ``dead``
    likewise why nothing is alive."""

    def __init__(self, stalled: Callable[[], str], render: Render | None, dead: Callable[[], str] = _alive) -> None:
        self._stalled = stalled
        self._dead = dead
        self._render = render
        self._server: asyncio.Server | None = None
        self._rendering = asyncio.Lock()
        self._connections: set[asyncio.Task[None] | None] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; answers with the port. Raises ``WorkerError`` where the address can't be had."""
        try:
            opening = asyncio.start_server(self._connected, host, port, limit=MAX_HEAD_BYTES, backlog=64)
            self._server = await _outside(opening)
        except OSError as error:
            raise WorkerError(
                f"the worker cannot serve its metrics on {host}:{port}: {error.strerror or error};"
                " choose another http_port in [jobs.worker], 0 for any that is free"
            ) from None
        bound: int = self._server.sockets[0].getsockname()[1]
        log.info("metrics and probes on http://%s:%d", host, bound)
        return bound

    async def serve(self, listener: socket.socket) -> None:
        """Answer on a socket that listens already."""
        self._server = await _outside(asyncio.start_server(self._connected, sock=listener, limit=MAX_HEAD_BYTES))

    async def aclose(self) -> None:
        """Stop listening. Answers that are on their way get a moment, then they are cut off."""
        if self._server is not None:
            self._server.close()
        waiting = [task for task in self._connections if task is not None]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=LINGER_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            async with asyncio.timeout(REQUEST_SECONDS + RESPONSE_SECONDS):
                writer.write(await self._answer(reader))
                await writer.drain()
                await _linger(reader, writer)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            log.debug("a client of the probes went away, or was too slow")
        except Exception:
            log.exception("a probe failed")
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()
            self._connections.discard(task)

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        if len(self._connections) > MAX_CONNECTIONS:
            return _response(HTTPStatus.SERVICE_UNAVAILABLE, b"too many connections\n")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"the request is too large\n")
        except TimeoutError:
            return _response(HTTPStatus.REQUEST_TIMEOUT, b"the request took too long\n")
        line, *fields = head.split("\r\n")
        parts = line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST, b"not an HTTP/1 request\n")
        method, target, _ = parts
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD only\n", more="Allow: GET, HEAD\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        status, body, kind = await self._route(target.partition("?")[0], headers.get("accept", ""))
        return _response(status, body, kind, with_body=method == "GET")

    async def _route(self, path: str, accept: str) -> tuple[HTTPStatus, bytes, str]:
        if path in ("/healthz", "/readyz"):
            why = self._dead() if path == "/healthz" else self._stalled()
            return (
                (HTTPStatus.SERVICE_UNAVAILABLE, f"{why}\n".encode(), TEXT) if why else (HTTPStatus.OK, b"ok\n", TEXT)
            )
        if path == "/metrics" and self._render is not None:
            async with self._rendering:  # one at a time: they share the interpreter with the jobs
                body, kind = await self._render(accept)
            return HTTPStatus.OK, body, kind
        return HTTPStatus.NOT_FOUND, b"/metrics, /healthz or /readyz\n", TEXT


async def _outside(opening: Coroutine[Any, Any, asyncio.Server]) -> asyncio.Server:
    """In an empty context: requests are answered for as long as the process lives, outside anybody's span."""
    return await asyncio.create_task(opening, context=contextvars.Context())


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Let the client read the answer before the connection goes: closed over unread bytes it would be reset."""
    if writer.can_write_eof():
        writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            for _ in range(MAX_LINGER_READS):
                if not await reader.read(MAX_HEAD_BYTES):
                    return


def _response(
    status: HTTPStatus, body: bytes, kind: str = TEXT, *, with_body: bool = True, more: str = ""
) -> bytes:  # fmt: skip
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        f"{more}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (body if with_body else b"")
