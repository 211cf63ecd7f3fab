"""OTLP over HTTP: how encoded spans and log records reach a collector.

With the standard library's client: the usual exporter brings an HTTP library of its own, 6 MB in every worker, and the fast
lane has no use for it. What the environment says of OTLP holds here too: ``OTEL_EXPORTER_OTLP_HEADERS`` (a token, say),
``OTEL_EXPORTER_OTLP_CERTIFICATE``, and the same with ``TRACES_`` or ``LOGS_``.
"""

from __future__ import annotations

import gzip
import logging
import os
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any

from opentelemetry.util.re import parse_env_headers

log = logging.getLogger("rf_jobs.telemetry")
TRIES = 3
FIRST_PAUSE_SECONDS = 0.5
_AGAIN = (429, 502, 503, 504)
"""The status codes after which OTLP has a client try again."""


class Poster:
    """Posts to one endpoint, from threads of exporters: ``post`` blocks. ``close`` ends the pauses between tries."""

    def __init__(self, endpoint: str, signal: str, *, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._closing = threading.Event()
        self._headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "gzip",
            **parse_env_headers(_environment("HEADERS", signal), liberal=True),
        }
        certificate = _environment("CERTIFICATE", signal)
        self._tls = ssl.create_default_context(cafile=certificate) if certificate else None

    def post(self, body: bytes) -> bool:
        """Whether the collector took it."""
        request = urllib.request.Request(self._endpoint, gzip.compress(body, 1), self._headers)  # noqa: S310 (from the settings)
        for attempt in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout, context=self._tls):  # noqa: S310
                    return True
            except urllib.error.HTTPError as error:
                error.close()
                log.warning("the collector at %s answered %s", self._endpoint, error)
                if error.code not in _AGAIN:
                    return False
            except (OSError, HTTPException) as error:
                log.warning("no collector at %s: %s", self._endpoint, error)
            if attempt + 1 < TRIES and self._closing.wait(FIRST_PAUSE_SECONDS * 2**attempt):
                break
        return False

    def close(self) -> None:
        """Wait no longer; a try that is under way still ends by itself."""
        self._closing.set()


def _environment(what: str, signal: str) -> str:
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{signal}_{what}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{what}", "")


class Exporter:
    """What the SDK's batch processors want of an exporter, for spans and log records alike."""

    def __init__(
        self, poster: Poster, encode: Callable[[Sequence[Any]], Any], results: tuple[Any, Any],
        told: Callable[[str, int], None],
    ) -> None:  # fmt: skip
        self._poster = poster
        self._encode = encode
        self._success, self._failure = results
        self._told = told

    def export(self, batch: Sequence[Any]) -> Any:
        """Send a batch."""
        sent = self._poster.post(self._encode(batch).SerializeToString())
        self._told("exported" if sent else "failed", len(batch))
        return self._success if sent else self._failure

    def shutdown(self) -> None:
        """The end."""
        self._poster.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits here."""
        return True
