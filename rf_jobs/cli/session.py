"""One invocation: its settings, how it answers, and its way to the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

import click

from rf_jobs.client.manager import QueueManager
from rf_jobs.words.config import Loaded, load_settings
from rf_jobs.words.config_settings import Settings
from rf_jobs.words.errors import UnknownQueue
from rf_jobs.words.ids import queue_name

T = TypeVar("T")
RETRY_SECONDS = 2.0
"""A person waits: an unreachable server is reported sooner than programs would give up."""


class Session:
    """Filled by the options as click reads them; lives as long as the command."""

    def __init__(self) -> None:
        self.config: str | None = None
        self.overrides: dict[str, object] = {}
        """Settings given as options, by path."""
        self.json = False
        self.verbose = False

    @cached_property
    def loaded(self) -> Loaded:
        """Settings with their origins. Raises ``ConfigError``."""
        return load_settings(self.config, overrides=self.overrides)

    def override(self, path: str, value: object) -> None:
        """Set a setting as an option would; the settings are read again."""
        self.overrides[path] = value
        self.__dict__.pop("loaded", None)

    def given(self, path: str) -> bool:
        """Whether the option for this setting was given."""
        return self.overrides.get(path) is not None

    @property
    def settings(self) -> Settings:
        """The effective settings."""
        return self.loaded.settings

    def run(self, work: Callable[[QueueManager], Awaitable[T]]) -> T:
        """Run ``work``, which only looks, with a connected manager, on an event loop of its own. Raises ``BackendError``."""
        return self._run(work, lambda _: nullcontext())

    def change(self, work: Callable[[QueueManager], Awaitable[T]]) -> T:
        """Run ``work``, which may change something: it is counted and traced as in any other program. Raises
        ``BackendError``, and ``ConfigError`` where the settings ask for telemetry that is not installed."""
        return self._run(work, self._told)

    def _run(
        self,
        work: Callable[[QueueManager], Awaitable[T]],
        around: Callable[[QueueManager], AbstractAsyncContextManager[None]],
    ) -> T:
        settings = self.settings
        if around != self._told:  # who only looks needs none of the application's code
            settings = replace(settings, jobs=replace(settings.jobs, middleware=()))

        async def connected() -> T:
            manager = await QueueManager.connect(settings, retry_for=RETRY_SECONDS)
            manager.inspector.keyring = None  # what is encrypted does not get onto terminals
            try:
                async with around(manager):
                    return await work(manager)
            finally:
                await manager.aclose()

        return asyncio.run(connected())

    @asynccontextmanager
    async def _told(self, manager: QueueManager) -> AsyncGenerator[None, None]:
        from rf_jobs.telemetry import telemetry  # noqa: PLC0415 (what only looks needs none)

        # The command says itself what became of the job; without --verbose nobody set logging up to say it again.
        lifecycle, silent = logging.getLogger("rf_jobs.lifecycle"), logging.NullHandler()
        lifecycle.addHandler(silent)
        try:
            async with telemetry(manager, self.settings.telemetry):
                yield
        finally:
            lifecycle.removeHandler(silent)


def session_of(ctx: click.Context) -> Session:
    """The session of an invocation."""
    session: Session = ctx.meta.setdefault("rf_jobs.session", Session())
    return session


async def known_queue(manager: QueueManager, queue: str) -> str:
    """``queue``, if it ever held a job. Raises ``UnknownQueue`` or ``InvalidOption``."""
    names = await manager.inspector.queue_names()
    if queue_name(queue) not in names:
        raise UnknownQueue(f"no queue {queue!r} has ever held a job; known are {', '.join(names) or 'none'}")
    return queue
