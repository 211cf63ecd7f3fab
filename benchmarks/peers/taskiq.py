"""taskiq on taskiq-redis, with each of its two durable brokers."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from redis.exceptions import ResponseError

from benchmarks.peer import Command, PythonPeer

if TYPE_CHECKING:
    from redis import Redis

BROKER_VARIABLE = "BENCH_TASKIQ_BROKER"


class _Taskiq(PythonPeer):
    environment = "taskiq"
    requirements = (
        "taskiq==0.13.0",
        "taskiq-redis==1.2.4",
        "uvloop==0.23.0",
        "hiredis==3.5.0",
        "orjson==3.13.0",
    )
    broker: str

    def client(self) -> Command:
        return Command([self.program("python"), "-m", "benchmarks.apps.taskiq_app"], {BROKER_VARIABLE: self.broker})

    def worker(self, redis_url: str) -> Command:
        # fmt: off
        argv = [
            self.program("taskiq"), "worker", "benchmarks.apps.taskiq_app:broker",
            "--workers", "1", "--max-async-tasks", "100", "--max-prefetch", "100",
            "--no-parse", "--log-level", "WARNING",
        ]
        # fmt: on
        return Command(argv, {BROKER_VARIABLE: self.broker})


class TaskiqList(_Taskiq):
    """Popped jobs are gone: no acknowledgement, a killed worker loses what it held."""

    name = "taskiq list"
    broker = "list"

    def remaining(self, server: Redis) -> int:
        return server.llen("taskiq")


class TaskiqStream(_Taskiq):
    name = "taskiq stream"
    broker = "stream"

    def remaining(self, server: Redis) -> int:
        try:
            groups = cast("list[dict[str, int]]", server.xinfo_groups("taskiq"))
        except ResponseError:  # no stream yet
            return 0
        return sum(group["pending"] + (group["lag"] or 0) for group in groups)
