"""The outside world: a mail server and a webhook that fails now and then, both real and on this machine."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


class MailServer:
    """An SMTP server that keeps what it gets. Runs from ``start`` to ``stop`` in a thread of its own."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []
        """(job id, recipient) of each mail received."""
        self._controller = Controller(self, hostname="127.0.0.1", port=0)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's name)
        """Keep a mail."""
        from email import message_from_bytes  # noqa: PLC0415

        mail = message_from_bytes(envelope.content)
        self.mails.append((str(mail["X-Job-Id"]), str(mail["To"])))
        return "250 kept"

    def start(self) -> str:
        """Listen; answers with host:port."""
        self._controller.port = free_port()
        self._controller.start()
        return f"127.0.0.1:{self._controller.port}"

    def stop(self) -> None:
        """End."""
        self._controller.stop()


class WebhookServer:
    """An HTTP server that answers 503 at a given rate and counts what it took."""

    def __init__(self, failure_rate: float) -> None:
        self.taken: Counter[int] = Counter()
        self.refused = 0
        dice = random.Random(1)  # noqa: S311
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["order"]
                if dice.random() < failure_rate:
                    owner.refused += 1
                    self.send_error(503)
                    return
                owner.taken[order] += 1
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def start(self) -> str:
        """Listen; answers with the URL."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/orders"

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    import socket  # noqa: PLC0415

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
