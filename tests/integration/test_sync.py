"""The synchronous twin."""

from __future__ import annotations

import inspect
import threading

import pytest

import rf_jobs
from rf_jobs import sync
from rf_jobs.words.errors import BackendError, JobNotFound
from tests.support import jobs
from tests.support.jobs import QUEUE
from tests.support.processes import in_fresh_interpreter


def public(cls: type) -> set[str]:
    return {
        name
        for name in dir(cls)
        if not name.startswith("_") and callable(getattr(cls, name)) and not isinstance(getattr(cls, name), type)
    }


def test_both_managers_have_the_same_names_and_parameters() -> None:
    ours, theirs = public(sync.QueueManager), public(rf_jobs.QueueManager)
    assert ours - {"close", "enter"} == theirs - {"aclose", "chain", "prepare"}, (
        "a chain is a running job's, which has a loop"
    )
    for name in theirs - {"aclose", "chain", "connect", "prepare"}:
        parameters = [
            [p.name for p in inspect.signature(getattr(cls, name)).parameters.values()]
            for cls in (sync.QueueManager, rf_jobs.QueueManager)
        ]
        assert parameters[0] == parameters[1], name


def test_a_life_without_a_loop(redis_url: str) -> None:
    with sync.QueueManager(redis_url) as manager:
        first = manager.dispatch(jobs.Add(a=1, b=1)).sync()
        second = manager.dispatch_later(jobs.Add(a=2, b=2), 3600).sync()
        manager.dispatch_many([jobs.Add(a=3, b=3), jobs.Add(a=4, b=4)])
        assert manager.counts(QUEUE)["ready"] == 3
        assert manager.cancel(second)
        [leased] = manager.pop_batch(QUEUE, 1)
        assert (leased.id, leased.job) == (first, jobs.Add(a=1, b=1))
        leased.complete({"sum": 2})
        assert manager.wait(first, 5) == {"sum": 2}
        [leased] = manager.pop_batch(QUEUE, 1)
        leased.fail("no")
        assert [letter.id for letter in manager.failed_jobs()] == [leased.id]
        assert manager.retry_all_failed() == 1
        assert manager.clear(QUEUE) == 2
        assert [queue.imbalance for queue in manager.queues()] == [0]
        with pytest.raises(JobNotFound):
            manager.job(second.__class__(int=5))
    with pytest.raises(BackendError, match="closed"):
        manager.size(QUEUE)


def test_the_default_queue_from_threads(redis_url: str) -> None:
    rf_jobs.configure(redis_url)
    try:
        threads = [threading.Thread(target=lambda: rf_jobs.Queue.dispatch(jobs.Add(a=1, b=1)).sync()) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with sync.QueueManager(redis_url) as manager:
            assert manager.size(QUEUE) == 8
    finally:
        rf_jobs.configure(None)


FORKED = """if True:
    import gc, os, sys, traceback, warnings
    from rf_jobs import sync
    from tests.support import jobs
    warnings.filterwarnings("ignore", ".*multi-threaded.*fork", DeprecationWarning)
    with sync.QueueManager(sys.argv[1]) as manager:
        manager.dispatch(jobs.Add(a=1, b=1)).sync()
        child = os.fork()
        if child == 0:
            try:
                manager.dispatch(jobs.Add(a=2, b=2)).sync()
                gc.collect()  # what was inherited and is dropped must not make the parent's connections deaf
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
        manager.dispatch(jobs.Add(a=3, b=3)).sync()
        print(manager.size(jobs.QUEUE))
"""


def test_after_a_fork(redis_url: str) -> None:
    assert in_fresh_interpreter(FORKED, redis_url) == "3\n"
