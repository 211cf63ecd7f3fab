"""The HTTP service: ``/metrics``, ``/healthz``, ``/readyz``, and an index for people.

It starts without the server and outlives its absence: then the page has the exporter's own figures alone, its errors are
counted, and ``/readyz`` is red.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import REGISTRY

from rf_jobs.client.manager import QueueManager
from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import MetricsCollector, Reading, Together, render
from rf_jobs.words.config_secrets import mask_url
from rf_jobs.words.config_settings import SecuritySettings, Settings
from rf_jobs.words.errors import ConfigError
from rf_jobs_exporter.auth import TOKEN_VARIABLE, bearer, is_loopback, token_from_environment
from rf_jobs_exporter.collector import RETRY_SECONDS, Collector, Snapshot
from rf_jobs_exporter.lease import ActiveLease

log = logging.getLogger("rf_jobs.exporter")
COLLECTOR: web.AppKey[Collector] = web.AppKey("collector", Collector)

_INDEX = """<!doctype html><html lang="en"><meta charset="utf-8"><title>rf-jobs exporter</title>
<h1>rf-jobs exporter</h1><ul><li><a href="metrics">/metrics</a> for Prometheus (text, or OpenMetrics with exemplars)
<li><a href="healthz">/healthz</a> whether this process lives<li><a href="readyz">/readyz</a> whether it reads the store
</ul></html>
"""


class Service:
    """The handlers, and the last page that was rendered for each format."""

    def __init__(self, collector: Collector, lease: ActiveLease, namespace: str) -> None:
        self._collector = collector
        self._lease = lease
        self._namespace = namespace
        self._rendering = asyncio.Lock()
        self._pages: dict[str, tuple[bytes, str]] = {}
        self._pages_of: Snapshot | None = None

    async def metrics(self, request: web.Request) -> web.Response:
        """The page, in the format that was asked for; of an exporter that stands by, that and nothing of the store."""
        active = await self._lease.hold()
        snapshot = await self._collector.snapshot() if active else Snapshot()
        body, content_type = await self._page(snapshot, request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
        response.enable_compression()
        return response

    async def _page(self, snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
        async with self._rendering:
            if self._pages_of is not snapshot:
                self._pages, self._pages_of = {}, snapshot
            if accept not in self._pages:
                if len(self._pages) > 8:
                    self._pages.clear()
                # In a thread: a large page takes a tenth of a second, and the probes must be answered meanwhile.
                self._pages[accept] = await asyncio.to_thread(self._render, snapshot.readings, accept)
            return self._pages[accept]

    def _render(self, readings: list[Reading], accept: str) -> tuple[bytes, str]:
        active = Reading(names.EXPORTER_ACTIVE, (), float(bool(readings)))
        ours = MetricsCollector(lambda: [*readings, active], namespace=self._namespace)
        return render(Together(ours, REGISTRY), accept)

    async def healthz(self, request: web.Request) -> web.Response:
        """The process lives."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """Whether the store could be read just now."""
        snapshot = await self._collector.snapshot()
        if snapshot.failed:
            lines = [f"{stage}: {why}" for stage, why in sorted(snapshot.failed.items())]
            return web.Response(status=503, text="\n".join(lines) + "\n")
        age = time.time() - self._collector.last_success
        return web.Response(text=f"ok, read {max(0.0, age):.1f} s ago\n")

    async def index(self, request: web.Request) -> web.Response:
        """For people."""
        return web.Response(text=_INDEX, content_type="text/html")


def create_app(settings: Settings, *, token: str | None = None) -> web.Application:
    """The application. ``token``: what readers must send, '' for nothing; None takes ``RF_JOBS_EXPORTER_TOKEN``."""
    wanted = token_from_environment() if token is None else token
    app = web.Application(middlewares=[bearer(wanted)] if wanted else [])
    # It must be able to say that the server evicts, and so to work with such a server. It has no use for keys.
    security = SecuritySettings(allow_evicting_server=True)
    jobs = dataclasses.replace(settings.jobs, middleware=())  # nor for the application's code
    manager = QueueManager(dataclasses.replace(settings, security=security, jobs=jobs), retry_for=RETRY_SECONDS)
    collector = app[COLLECTOR] = Collector(manager, settings.exporter.cache_seconds)
    lease = ActiveLease(manager.store)
    service = Service(collector, lease, settings.telemetry.metric_namespace)

    async def close(_: web.Application) -> AsyncIterator[None]:
        yield
        await lease.release()
        await manager.aclose()

    app.cleanup_ctx.append(close)
    app.router.add_get("/metrics", service.metrics)
    app.router.add_get("/healthz", service.healthz)
    app.router.add_get("/readyz", service.readyz)
    app.router.add_get("/", service.index)
    return app


async def serve(settings: Settings, stop: asyncio.Event, started: Callable[[str], object] = lambda _url: None) -> None:
    """Serve until ``stop``; ``started`` is told the page's URL. Raises ``ConfigError`` where the address can't be had."""
    wanted = settings.exporter
    if not is_loopback(wanted.host) and not token_from_environment():
        log.warning(
            "everybody who reaches %s can read the metrics; set %s to ask for a token", wanted.host, TOKEN_VARIABLE
        )
    runner = web.AppRunner(create_app(settings), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, wanted.host, wanted.port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"the exporter cannot serve on {wanted.host}:{wanted.port}: {error.strerror or error};"
                " choose another host or port in [jobs.exporter], port 0 for any that is free"
            ) from None
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}/metrics"
        log.info("metrics of %s on %s", mask_url(settings.jobs.redis_url), url)
        started(url)
        await stop.wait()
    finally:
        await runner.cleanup()


async def _until_signalled(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def run(settings: Settings) -> None:
    """Serve until SIGTERM or Ctrl-C. Raises ``ConfigError`` where the address can't be had."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 (an extra)

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_signalled(settings))
