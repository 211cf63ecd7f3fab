"""The example's application, as ``python -m aiohttp.web`` wants it."""

from __future__ import annotations

from aiohttp import web

from examples.aiohttp_app import create_app


def create(arguments: list[str]) -> web.Application:
    """The application."""
    return create_app()
