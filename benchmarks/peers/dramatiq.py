"""dramatiq: threads; the longest-lived of the readable ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peer import Command, PythonPeer

if TYPE_CHECKING:
    from redis import Redis


class Dramatiq(PythonPeer):
    name = "dramatiq"
    environment = "dramatiq"
    requirements = ("dramatiq[redis]==2.2.1", "hiredis==3.5.0")

    def client(self) -> Command:
        return Command([self.program("python"), "-m", "benchmarks.apps.dramatiq_app"])

    def worker(self, redis_url: str) -> Command:
        argv = [self.program("dramatiq"), "benchmarks.apps.dramatiq_app", "--processes", "1", "--threads", "8"]
        return Command(argv, {"dramatiq_queue_prefetch": "256"})

    def remaining(self, server: Redis) -> int:
        return server.hlen("dramatiq:default.msgs")  # a message leaves it with its acknowledgement
