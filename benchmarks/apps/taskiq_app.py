"""taskiq with taskiq-redis: the list broker (no acknowledgement: a killed worker loses its jobs) and the stream broker
(acknowledges), chosen by ``BENCH_TASKIQ_BROKER``. uvloop and hiredis, orjson as serializer, no result backend, 100 jobs
at once with as many prefetched, no validation of arguments.
"""
# mypy: disable-error-code="import-not-found, import-untyped, misc, untyped-decorator"

from __future__ import annotations

import os

import uvloop
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.apps.agent import Enqueuer, Stamps, redis_url, serve

BROKER_VARIABLE = "BENCH_TASKIQ_BROKER"
_class = {"list": ListQueueBroker, "stream": RedisStreamBroker}[os.environ[BROKER_VARIABLE]]
broker = _class(redis_url()).with_serializer(ORJSONSerializer())
stamps = Stamps()


@broker.task(task_name="noop")
async def noop() -> None:
    """Nothing."""


@broker.task(task_name="stamp")
async def stamp(sent_ns: int) -> None:
    stamps.note(sent_ns)


@broker.task(task_name="payload")
async def payload(body: str) -> None:
    """Nothing."""


class Taskiq(Enqueuer):
    async def connect(self) -> None:
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()

    async def noop(self) -> None:
        await noop.kiq()

    async def stamp(self, sent_ns: int) -> None:
        await stamp.kiq(sent_ns)

    async def payload(self, body: str) -> None:
        await payload.kiq(body)


if __name__ == "__main__":
    serve(Taskiq(), uvloop.run)
