"""A batch consumer: one call of ``handle_many`` for many jobs, each with its own outcome."""

from typing import ClassVar, Self

from examples.here import run
from rf_jobs import Job, JobContext, QueueManager, Retry, WorkerPool


class Index(Job, many=100, many_wait=0.2):
    document: str

    calls: ClassVar[list[int]] = []

    @classmethod
    async def handle_many(cls, jobs: list[Self], ctxs: list[JobContext]) -> list[object]:
        cls.calls.append(len(jobs))  # a bulk request to a search engine, say
        busy = [job.document == "busy" and ctx.attempt == 1 for job, ctx in zip(jobs, ctxs, strict=True)]
        return [Retry(delay=0) if wait else f"indexed {job.document}" for job, wait in zip(jobs, busy, strict=True)]


async def main(manager: QueueManager) -> None:
    Index.calls.clear()
    documents = [*(f"page {n}" for n in range(119)), "busy"]
    ids = await manager.dispatch_many([Index(document=document) for document in documents])
    async with WorkerPool(manager=manager):
        results = [await manager.wait(job_id, timeout=20) for job_id in ids]
    assert results == [f"indexed {document}" for document in documents]
    print("jobs in each call:", Index.calls)  # 100, then those that were left, then the one that was tried again


if __name__ == "__main__":
    run(main)
