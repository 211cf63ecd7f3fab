"""Several sets of queues in one supervisor, each with processes of its own; and processes that grow old."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rf_jobs import QueueManager
from rf_jobs.core.doctor import deep_check
from tests.support.supervised import QUEUE, Tell, deploy, never_fewer_slots, supervised


@pytest.fixture
async def manager(redis_url: str) -> AsyncIterator[QueueManager]:
    async with QueueManager(redis_url) as running:
        yield running
        assert (await deep_check(running.store)).problems == []


async def test_each_set_has_its_own_processes_and_concurrency(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    sets = ("--set", "mail: queues=emails,sms processes=2 workers=8", "--set", f"rest: queues={QUEUE}")
    async with supervised(manager, tmp_path, *sets, "--max-concurrent-jobs", "3", "--http-port", "0") as worker:
        found = await worker.workers("running", 3)
        assert sorted((tuple(w.queues), w.slots) for w in found) == [(("emails", "sms"), 24)] * 2 + [((QUEUE,), 3)]
        mail = {w.pid for w in found if "sms" in w.queues}
        assert (await manager.dispatch(Tell()).on_queue("sms").result(20))[1] in mail
        assert (await manager.dispatch(Tell()).result(20))[1] not in mail
        await worker.shows("/readyz", "^ok$")
        for place in ("mail/0", "mail/1", "rest/0"):
            assert f" for {place}\n" in worker.log


async def test_sets_from_the_file(manager: QueueManager, tmp_path: Path) -> None:
    deploy(tmp_path, "one")
    (tmp_path / "rf-jobs.toml").write_text(
        f"""
        [[jobs.worker.sets]]
        name = "mail"
        queues = ["emails"]
        [[jobs.worker.sets]]
        name = "rest"
        queues = {{{QUEUE} = 3, slow = 1}}
        """
    )
    async with supervised(manager, tmp_path, "--workers", "2", sets_from_file=True) as worker:
        found = await worker.workers("running", 2)
        assert {tuple(sorted(w.queues)): w.slots for w in found} == {("emails",): 20, ("slow", QUEUE): 20}


@pytest.mark.timeout(120)
async def test_old_processes_are_replaced_one_at_a_time_and_nobody_is_missed(
    manager: QueueManager, tmp_path: Path
) -> None:
    deploy(tmp_path, "one")
    async with supervised(manager, tmp_path, "--processes", "2", "--max-age-seconds", "3") as worker:
        first = {w.pid for w in await worker.workers("running", 2)}
        async with never_fewer_slots(manager, 20):
            await worker.workers("running", 2, but=first)
        await worker.says(r"replacing worker process \d+: it has run for [23] s \(max_age_seconds\)")
    assert "died" not in worker.log
