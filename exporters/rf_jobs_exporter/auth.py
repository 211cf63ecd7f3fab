"""Who may read: everybody, or whoever has the token."""

from __future__ import annotations

import hmac
import ipaddress
import os

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

TOKEN_VARIABLE = "RF_JOBS_EXPORTER_TOKEN"  # noqa: S105 (a variable's name)
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""Probes can't send a token, and say nothing."""


def token_from_environment() -> str:
    """The token that readers must send, '' for none. A secret: it has no place in the configuration file."""
    return os.environ.get(TOKEN_VARIABLE, "").strip()


def bearer(token: str) -> Middleware:
    """Let in who sends ``Authorization: Bearer <token>``."""
    wanted = f"Bearer {token}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        sent = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if request.path in OPEN_PATHS or hmac.compare_digest(sent, wanted):
            return await handler(request)
        raise web.HTTPUnauthorized(headers={"WWW-Authenticate": 'Bearer realm="rf-jobs"'}, text="send the token\n")

    return check


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
