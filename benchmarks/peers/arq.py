"""arq: a sorted set of ids that is polled; the most used asyncio queue."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peer import Command, PythonPeer

if TYPE_CHECKING:
    from redis import Redis


class Arq(PythonPeer):
    name = "arq"
    environment = "arq"
    requirements = ("arq==0.28.0", "uvloop==0.23.0", "hiredis==3.5.0")

    def client(self) -> Command:
        return Command([self.program("python"), "-m", "benchmarks.apps.arq_app", "client"])

    def worker(self, redis_url: str) -> Command:
        return Command([self.program("python"), "-m", "benchmarks.apps.arq_app", "worker"])

    def remaining(self, server: Redis) -> int:
        return server.zcard("arq:queue")  # an id leaves it when its job is finished
