"""Cases of what nobody does: jobs that nobody takes or opens, schedules that nobody keeps, consequences that nobody draws, and
workers that don't stay up."""

from __future__ import annotations

from deploy.rule_case import Case, Fired, labels_of, series

_MINUTES = 50


def _for_good(value: int) -> str:
    return f"{value}x{_MINUTES}"


_PARKED = Case(
    "parked: for a quarter of an hour without a break",
    {
        series("queue_depth", "forgotten", state="parked"): "3x30",
        series("queue_depth", "deploying", state="parked"): "3x10 0x2 3x10 0x8",
        series("queue_depth", "served", state="parked"): "0x30",
        series("queue_depth", "served", state="ready"): "3x30",
    },
    {
        ("14m", "RFJobsParked"): (),
        ("20m", "RFJobsParked"): (Fired("RFJobsParked", "3", labels=labels_of("forgotten")),),
    },
)


def _refused(alert: str, reason: str) -> Case:
    """The counter of a class that nobody could read begins with its first job."""

    def failed(queue: str, reason: str = reason) -> str:
        return series("jobs_failed_total", queue, job_class="_unknown", reason=reason)

    def dead(queue: str) -> str:
        return series("queue_events_total", queue, event="dead")

    return Case(
        f"{reason}: the first jobs of a queue, and more of them; not those of long ago, nor what died of something else",
        {
            failed("first"): "_x20 2x30",
            dead("first"): "0x19 2x30",
            failed("again"): "5x19 6x30",
            dead("again"): "5x19 6x30",
            failed("old"): _for_good(9),
            dead("old"): _for_good(9),
            failed("other", "exception"): f"0+1x{_MINUTES}",
            failed("other"): _for_good(0),
            dead("other"): f"0+1x{_MINUTES}",
        },
        {
            ("5m", alert): (),
            ("19m", alert): (),
            ("22m", alert): tuple(
                Fired(alert, value, labels=labels_of(queue)) for queue, value in (("first", "2"), ("again", "1"))
            ),
            ("40m", alert): (),
        },
    )


def _ended(worker: str, reason: str) -> str:
    return f'rf_supervisor_process_ends_total{{cluster="c1", instance="{worker}:9441", reason="{reason}"}}'


_CRASH_LOOP = Case(
    "crash loop: processes that crash or don't start; not one crash, and not those that were replaced",
    {
        _ended("crashing", "crashed"): f"0+1x{_MINUTES}",
        _ended("misled", "crashed"): "0x4 1x46",
        _ended("misled", "not_started"): f"0x4 1+1x5 6x{_MINUTES - 10}",
        _ended("unlucky", "crashed"): "0x4 1x46",
        _ended("rolling", "rolled"): f"0+5x{_MINUTES}",
        _ended("rolling", "recycled"): f"0+5x{_MINUTES}",
    },
    {
        ("2m", "RFJobsWorkerCrashLoop"): (),
        ("15m", "RFJobsWorkerCrashLoop"): tuple(
            Fired("RFJobsWorkerCrashLoop", value, labels={"cluster": "c1", "instance": f"{worker}:9441"})
            for worker, value in (("crashing", "15"), ("misled", "7"))
        ),
        ("45m", "RFJobsWorkerCrashLoop"): (
            Fired("RFJobsWorkerCrashLoop", "15", labels={"cluster": "c1", "instance": "crashing:9441"}),
        ),
    },
)


def _schedule(metric: str, name: str) -> str:
    return f'{metric}{{cluster="c1", schedule="{name}"}}'


_NEXT_RUN = "rf_schedule_next_run_timestamp_seconds"
_SCHEDULES = Case(
    "schedules: one that was due and did not run, one that left out ticks; not one that keeps its times",
    {
        _schedule(_NEXT_RUN, "late"): _for_good(600),
        _schedule(_NEXT_RUN, "kept"): f"60+60x{_MINUTES}",
        _schedule(_NEXT_RUN, "late-once"): f"0x2 240+60x{_MINUTES}",
        _schedule("rf_schedule_missed_total", "late"): "0x5 3x44",
        _schedule("rf_schedule_missed_total", "kept"): _for_good(7),
    },
    {
        ("5m", "RFJobsScheduleMissed"): (),
        ("10m", "RFJobsScheduleMissed"): (
            Fired("RFJobsScheduleMissed", "3", "15m", {"cluster": "c1", "schedule": "late"}),
        ),
        ("40m", "RFJobsScheduleMissed"): (
            Fired("RFJobsScheduleMissed", "30m 0s", labels={"cluster": "c1", "schedule": "late"}),
        ),
    },
)
_SCHEDULERS = Case(
    "no scheduler: where there are schedules",
    {
        'rf_schedulers{cluster="c1"}': "1x5 0x25",
        _schedule(_NEXT_RUN, "daily"): "86400x30",
        'rf_schedulers{cluster="c2"}': "0x30",
        'rf_schedulers{cluster="c3"}': "2x30",
        _schedule(_NEXT_RUN, "daily").replace("c1", "c3"): "86400x30",
    },
    {
        ("5m", "RFJobsNoScheduler"): (),
        ("10m", "RFJobsNoScheduler"): (Fired("RFJobsNoScheduler", "0", labels={"cluster": "c1"}),),
    },
)
_CONSEQUENCES = Case(
    "consequences: some could not be drawn, or nobody draws any; not where they come and go",
    {
        'rf_consequences_skipped{cluster="c1"}': "0x5 2x24",
        'rf_consequences_unsettled{cluster="c1"}': "0x30",
        'rf_consequences_skipped{cluster="c2"}': "0x30",
        'rf_consequences_unsettled{cluster="c2"}': "0x5 3x5 4x18",
        'rf_consequences_skipped{cluster="c3"}': "0x30",
        'rf_consequences_unsettled{cluster="c3"}': "4 6 5 8 " * 7,
        'rf_consequences_skipped{cluster="c4"}': "0x30",
        'rf_consequences_unsettled{cluster="c4"}': "0x5 50000-1000x23",
    },
    {
        ("10m", "RFJobsConsequencesUndrawn"): (),
        ("20m", "RFJobsConsequencesUndrawn"): tuple(
            Fired("RFJobsConsequencesUndrawn", value, labels={"cluster": cluster})
            for cluster, value in (("c1", "2"), ("c2", "4"))
        ),
    },
)

CASES: tuple[Case, ...] = (
    _PARKED,
    _refused("RFJobsForged", "forged"),
    _refused("RFJobsUnopened", "unopened"),
    _CRASH_LOOP,
    _SCHEDULES,
    _SCHEDULERS,
    _CONSEQUENCES,
)
