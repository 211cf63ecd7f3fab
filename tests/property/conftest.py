"""What tests of workflows and limits share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rf_jobs.core.inspector import imbalance
from rf_jobs.store.embedded import EmbeddedServer
from tests.property import snapshot
from tests.property.flow import Flow


@pytest.fixture
def flow(server: EmbeddedServer) -> Iterator[Flow]:
    running = Flow(server.url)
    yield running
    running.settle()
    assert snapshot.faults(running.look()) == []
    survey = running.store.run(running.commands.survey())
    assert {queue.name: imbalance(queue) for queue in survey.queues} == {queue.name: 0 for queue in survey.queues}
    running.client.flushall()
    running.close()
