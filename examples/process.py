"""A handler that computes for long, or may crash, runs in a process of its own: a timeout or a crash ends only that."""

import os
from importlib import import_module

from examples.here import run
from rf_jobs import ExecutionFailed, Job, JobContext, QueueManager, WorkerPool


class Crunch(Job, executor="process"):
    upto: int

    def handle(self, ctx: JobContext) -> tuple[int, int]:
        return os.getpid(), sum(n * n for n in range(self.upto))


class Crash(Job, executor="process"):
    def handle(self, ctx: JobContext) -> None:
        os._exit(3)  # as a fault in C code would


async def main(manager: QueueManager) -> None:
    async with WorkerPool(manager=manager):
        pid, total = await manager.dispatch(Crunch(upto=1000)).result(timeout=30)
        print(f"process {pid} says {total}, process {os.getpid()} lives on")
        assert pid != os.getpid()
        try:
            await manager.dispatch(Crash()).result(timeout=30)
        except ExecutionFailed as error:
            print(error)  # after max_crashes


if __name__ == "__main__":
    # The job process imports the class by its module's name, which must not be __main__.
    run(import_module("examples.process").main)
