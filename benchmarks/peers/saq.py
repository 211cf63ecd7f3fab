"""SAQ: lists and a sorted set, with a Lua script for dequeue and several commands to finish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peer import Command, PythonPeer

if TYPE_CHECKING:
    from redis import Redis


class Saq(PythonPeer):
    name = "SAQ"
    environment = "saq"
    # It imports typing_extensions without asking for it.
    requirements = ("saq[redis,hiredis]==0.26.4", "uvloop==0.23.0", "hiredis==3.5.0", "typing_extensions==4.16.0")

    def client(self) -> Command:
        return Command([self.program("python"), "-m", "benchmarks.apps.saq_app", "client"])

    def worker(self, redis_url: str) -> Command:
        return Command([self.program("python"), "-m", "benchmarks.apps.saq_app", "worker"])

    def remaining(self, server: Redis) -> int:
        return server.zcard("saq:bench:incomplete")
