"""The supervisor's orders arrive whole, or not at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import msgspec
import pytest

from rf_jobs.store.shapes import Beaten
from rf_jobs.worker.orders import Order, OrderPipe

LONG = Order(Beaten(1, "instance", [], [f"job {n}" for n in range(50_000)]))
SHORT = Order(None, retire=True)


@pytest.fixture
def ends() -> Iterator[tuple[OrderPipe, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield OrderPipe(ours), theirs


def read(end: socket.socket) -> bytes:
    data = b""
    try:
        while more := end.recv(1 << 20):
            data += more
    except BlockingIOError:
        pass
    return data


def test_a_line_that_the_socket_takes_in_pieces_is_whole(ends: tuple[OrderPipe, socket.socket]) -> None:
    pipe, child = ends
    assert pipe.send(LONG)
    assert not pipe.send(SHORT), "it would stand in the middle of the long one"
    received = b""
    while not pipe.send(SHORT):
        received += read(child)
    received += read(child)
    assert [msgspec.json.decode(line, type=Order) for line in received.splitlines()] == [LONG, SHORT]
    assert received.endswith(b"\n")


def test_a_child_that_is_gone(ends: tuple[OrderPipe, socket.socket]) -> None:
    pipe, child = ends
    child.close()
    assert not pipe.send(SHORT)
