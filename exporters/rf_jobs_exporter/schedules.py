"""From the survey of schedules to their metrics."""

from __future__ import annotations

from collections.abc import Iterator

from rf_jobs.store.schedule_calls import ScheduleSurvey
from rf_jobs.telemetry import names
from rf_jobs.telemetry.exposition import Reading

MOST_SCHEDULES = 1000
"""So many have series of their own: those that run next."""
_TIMES = (
    (names.SCHEDULE_NEXT_RUN, "due"),
    (names.SCHEDULE_LAST_RUN, "ran"),
    (names.SCHEDULE_LAST_SUCCESS, "succeeded"),
    (names.SCHEDULE_LAG, "lag"),
)


def schedule_readings(survey: ScheduleSurvey) -> Iterator[Reading]:
    """What is known of each; what is not (it never ran) has no series."""
    yield Reading(names.SCHEDULERS, (), float(survey.schedulers))
    yield Reading(names.SCHEDULES, (), float(survey.schedules))
    for row in survey.rows:
        for metric, field in _TIMES:
            value = getattr(row, field)
            if value is not None:
                yield Reading(metric, (row.name,), value / 1000)
        yield Reading(names.SCHEDULE_MISSED, (row.name,), float(row.missed or 0))
