"""A TCP proxy before a server, which lets a chosen command through and then loses its reply."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self

TICK_SECONDS = 0.1
"""How soon a thread notices that the proxy is closed; waiting for data is not delayed by it."""

LONGEST_MARKER = 64


class ReplyCutter:
    """``cut(marker)`` arms it: the next command that contains the marker reaches the server, and its connection is dropped
    when the reply comes. Use it as a context manager."""

    def __init__(self, server_socket: str) -> None:
        self._path = server_socket
        self._marker = b""
        self._open = True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept)]
        self.cuts = 0
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    def cut(self, marker: bytes) -> None:
        """Lose the next reply to a command that holds these bytes."""
        assert 1 < len(marker) <= LONGEST_MARKER
        self._marker = marker

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # fmt: skip
        self._open = False
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while self._open:
            if select.select([self._listener], [], [], TICK_SECONDS)[0]:
                client, _ = self._listener.accept()
                thread = threading.Thread(target=self._serve, args=(client,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(self._path)
            with contextlib.suppress(OSError):  # either side may be gone
                self._pass_on(client, server)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        armed, before = False, b""
        while self._open:
            for ready in select.select([client, server], [], [], TICK_SECONDS)[0]:
                data = ready.recv(1 << 20)
                if not data:
                    return
                if ready is server:
                    if armed:
                        self.cuts += 1
                        return
                    client.sendall(data)
                else:
                    marker = self._marker
                    if marker and marker in before[1 - len(marker) :] + data:  # it may come in two pieces
                        self._marker, armed = b"", True
                    before = (before + data)[-LONGEST_MARKER:]
                    server.sendall(data)
