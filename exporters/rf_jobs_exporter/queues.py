"""From the survey of all queues to their metrics; a queue that is known has all its series, at 0 where it has nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rf_jobs.core.inspector import queue_info
from rf_jobs.core.records import QueueInfo
from rf_jobs.store.shapes import QueueSurvey, Survey
from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import Reading
from rf_jobs.words.states import State

_EVICTED = "evicted_"


def queue_readings(survey: Survey, known: Iterable[str], objective: float) -> Iterator[Reading]:
    """All series of all queues: those that ever held a job, and those that a worker serves."""
    found = {queue.name: queue for queue in survey.queues}
    for name in sorted({*found, *known}):
        queue = found.get(name) or _empty(name)
        yield from _queue(queue_info(queue, survey.now_ms), objective)


def _empty(name: str) -> QueueSurvey:
    return QueueSurvey(name, dict.fromkeys((state.value for state in State), 0), None, None, None, None, paused=False)


def _queue(queue: QueueInfo, objective: float) -> Iterator[Reading]:
    for state in names.DEPTH_STATES:
        yield Reading(names.QUEUE_DEPTH, (queue.name, state), float(queue.counts[state]))
    for event, count in events(queue.ledger).items():
        yield Reading(names.QUEUE_EVENTS, (queue.name, event), float(count))
    for metric, value in (
        (names.LEDGER_IMBALANCE, float(queue.imbalance)),
        (names.QUEUE_OLDEST_AGE, queue.oldest_ready_seconds),
        (names.QUEUE_OLDEST_RUNNING, queue.oldest_running_seconds),
        (names.DEAD_LETTER_AGE, queue.oldest_dead_seconds),
        (names.QUEUE_PAUSED, float(queue.paused)),
        (names.QUEUE_AGE_OBJECTIVE, objective),
    ):
        yield Reading(metric, (queue.name,), value)


def events(ledger: dict[str, int]) -> dict[str, int]:
    """The ledger's counters by the event's name; what retention removed is one event, whatever state it was in."""
    found: Counter[str] = Counter({str(event): 0 for event in names.EVENTS})
    for name, count in ledger.items():
        found["evicted" if name.startswith(_EVICTED) else name] += count
    return dict(found)
