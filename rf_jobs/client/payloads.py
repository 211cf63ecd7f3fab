"""Payload stores: where payloads lie that are too large for the server.

A store keeps bytes under a name, and nothing more: what is put there is sealed before, if it is to be, and checked by its
digest after. A name is made once and never used for something else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Protocol

from rf_jobs.words.errors import BackendError, ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{3,199}\Z")
_MARKER = ".rf-jobs-payloads"
_GONE = ("NoSuchKey", "NotFound", "404")
"""What an S3 client's error says of an object that is not there."""


class PayloadStore(Protocol):
    """Implement it to keep payloads elsewhere. Whatever a method raises means that the store can't be reached just now: the
    dispatch fails, or the job waits."""

    async def put(self, name: str, data: bytes) -> None:
        """Keep ``data``, whole or not at all; when it returns, ``get`` finds it from every host."""

    async def get(self, name: str) -> bytes | None:
        """What was put under this name; None where there is nothing."""

    async def delete(self, name: str) -> None:
        """Remove it; what is not there is removed already."""


class FilePayloads:
    """Payloads as files in a folder that all clients and workers share, spread over subfolders. Written to a temporary
    name first, so that no reader sees half a file."""

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    async def put(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._write, self._path(name), data)

    async def get(self, name: str) -> bytes | None:
        return await asyncio.to_thread(self._read, self._path(name))

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._path(name).unlink, missing_ok=True)

    def _path(self, name: str) -> Path:
        """Raises ``ConfigError`` for a name that could lead out of the folder; ours never do."""
        if not _NAME.match(name):
            raise ConfigError(f"{name!r} is no name for a payload; use 4 to 200 letters, digits, _ . and -")
        # The end of a name is random; its beginning is the time.
        return self._folder / name[-2:].lower() / name[-4:-2].lower() / name

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        marker = self._folder / _MARKER
        if not marker.exists():
            marker.touch(mode=0o600)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise

    def _read(self, path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            if (self._folder / _MARKER).exists():
                return None
        # The disk that is not mounted, or another path than the clients have: the payloads are not lost.
        raise BackendError(
            f"the payload folder {str(self._folder)!r} holds no payloads and never did; is it mounted, and the same path"
            " as where jobs are dispatched?"
        )


class ObjectPayloads:
    """Payloads as objects of an S3-like service. ``client`` is any object with the coroutines ``put_object``,
    ``get_object`` and ``delete_object`` as aiobotocore's has them; it is yours to make and to close."""

    def __init__(self, client: Any, bucket: str, prefix: str = "rf-jobs/") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    async def put(self, name: str, data: bytes) -> None:
        await self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data)

    async def get(self, name: str) -> bytes | None:
        try:
            found = await self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
        except Exception as error:  # the client's own kind; which one, we can't know
            if _code_of(error) in _GONE:
                return None
            raise
        body = found["Body"]
        if isinstance(body, bytes):
            return body
        async with contextlib.AsyncExitStack() as stack:
            if hasattr(body, "__aexit__"):  # gives the connection back
                await stack.enter_async_context(body)
            data: bytes = await body.read()
        return data

    async def delete(self, name: str) -> None:
        await self._client.delete_object(Bucket=self._bucket, Key=self._prefix + name)


def _code_of(error: Exception) -> str:
    response = getattr(error, "response", None)
    details = response.get("Error", {}) if isinstance(response, dict) else {}
    return str(details.get("Code", ""))
