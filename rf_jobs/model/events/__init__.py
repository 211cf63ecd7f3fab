"""What the core publishes: one typed event for each transition, after the store has accepted it.

| event | when | says |
|---|---|---|
| JobDispatched, JobDeduplicated, DispatchRejected | a client dispatched | state, delay |
| JobOutboxed, OutboxRelayed, OutboxMeasured | a transaction wrote a dispatch to an outbox; a relay moved some on, or looked | how many, lag |
| JobsPromoted | delayed jobs came due and became ready | how many, the greatest lag |
| JobStarted | a handler is about to run | attempt, wait |
| JobCompleted, JobRetried, JobDied, JobSnoozed, JobReleased, JobDiscarded, JobExpired, JobParked, JobCrashed, AttemptLost | an attempt ended | times, error |
| JobReclaimed | a dead worker's job was taken back | crashes |
| JobUnparked, JobReplayed, JobForgotten, JobCancelled, CancelRequested | an operator's or the upkeep's doing | |
| JobCancelAcknowledged | its worker has told a running job to stop | seconds since the request |
| JobBlocked, JobUnblocked, JobRestored | it waits for others or for a limit; no more; again, since what it waited for was replayed | why |
| JobReprioritized, JobRescheduled | an operator moved a waiting job | |
| BatchFinished | the last member of a batch has ended | its state, how many failed |
| QueuePaused, QueueResumed, QueueCleared, HoldSet, HoldEnded | a queue; a class or a tag | |
| WorkerStarted, WorkerStopping, WorkerStopped, WorkerBeat, JobsFetched, LeaseLost, LoopLagged, JobOverran | the worker's own life | |
| ScheduleTicked, ScheduleTaken, ScheduleOverlapped, ScheduleMissed, ScheduleFailed | a tick of a schedule was dispatched, by this scheduler or another; was not, since the last is not over; was passed over; could not be | lag, how many, why |
| ScheduleAdded, ScheduleChanged, SchedulePaused, ScheduleResumed, ScheduleTriggered, ScheduleRemoved, ScheduleOrphaned | | |
| SchedulerStarted, SchedulerStopped | a scheduler's own life | |
| OperationDone | a round trip to the server ended | operation, seconds, error |

Subscribers are plain functions, called in the order of subscription on the thread that emits; one that raises is logged
and never disturbs the job. Telemetry is such a subscriber, and has no other way in.
"""

from rf_jobs.model.events.attempts import (
    AttemptEnded,
    AttemptEvent,
    AttemptLost,
    FailedAttempt,
    JobCompleted,
    JobCrashed,
    JobDied,
    JobDiscarded,
    JobExpired,
    JobParked,
    JobReclaimed,
    JobReleased,
    JobRetried,
    JobSnoozed,
    JobStarted,
)
from rf_jobs.model.events.base import (
    Event,
    JobEvent,
    OperationDone,
)
from rf_jobs.model.events.bus import EventBus, kinds_of
from rf_jobs.model.events.dispatches import (
    DispatchRejected,
    JobDeduplicated,
    JobDispatched,
    JobOutboxed,
    JobsPromoted,
    OutboxMeasured,
    OutboxRelayed,
)
from rf_jobs.model.events.schedules import (
    ScheduleAdded,
    ScheduleChanged,
    ScheduleEvent,
    ScheduleFailed,
    ScheduleMissed,
    ScheduleOrphaned,
    ScheduleOverlapped,
    SchedulePaused,
    ScheduleRemoved,
    ScheduleResumed,
    SchedulerStarted,
    SchedulerStopped,
    ScheduleTaken,
    ScheduleTicked,
    ScheduleTriggered,
)
from rf_jobs.model.events.steering import (
    DEPENDENCIES,
    BatchFinished,
    CancelRequested,
    HoldEnded,
    HoldSet,
    JobBlocked,
    JobCancelAcknowledged,
    JobCancelled,
    JobForgotten,
    JobReplayed,
    JobReprioritized,
    JobRescheduled,
    JobRestored,
    JobUnblocked,
    JobUnparked,
    QueueCleared,
    QueuePaused,
    QueueResumed,
)
from rf_jobs.model.events.workers import (
    JobOverran,
    JobsFetched,
    LeaseLost,
    LoopLagged,
    WorkerBeat,
    WorkerEvent,
    WorkerStarted,
    WorkerStopped,
    WorkerStopping,
)

__all__ = [
    "DEPENDENCIES",
    "AttemptEnded",
    "AttemptEvent",
    "AttemptLost",
    "BatchFinished",
    "CancelRequested",
    "DispatchRejected",
    "Event",
    "EventBus",
    "FailedAttempt",
    "HoldEnded",
    "HoldSet",
    "JobBlocked",
    "JobCancelAcknowledged",
    "JobCancelled",
    "JobCompleted",
    "JobCrashed",
    "JobDeduplicated",
    "JobDied",
    "JobDiscarded",
    "JobDispatched",
    "JobEvent",
    "JobExpired",
    "JobForgotten",
    "JobOutboxed",
    "JobOverran",
    "JobParked",
    "JobReclaimed",
    "JobReleased",
    "JobReplayed",
    "JobReprioritized",
    "JobRescheduled",
    "JobRestored",
    "JobRetried",
    "JobSnoozed",
    "JobStarted",
    "JobUnblocked",
    "JobUnparked",
    "JobsFetched",
    "JobsPromoted",
    "LeaseLost",
    "LoopLagged",
    "OperationDone",
    "OutboxMeasured",
    "OutboxRelayed",
    "QueueCleared",
    "QueuePaused",
    "QueueResumed",
    "ScheduleAdded",
    "ScheduleChanged",
    "ScheduleEvent",
    "ScheduleFailed",
    "ScheduleMissed",
    "ScheduleOrphaned",
    "ScheduleOverlapped",
    "SchedulePaused",
    "ScheduleRemoved",
    "ScheduleResumed",
    "ScheduleTaken",
    "ScheduleTicked",
    "ScheduleTriggered",
    "SchedulerStarted",
    "SchedulerStopped",
    "WorkerBeat",
    "WorkerEvent",
    "WorkerStarted",
    "WorkerStopped",
    "WorkerStopping",
    "kinds_of",
]  # fmt: skip
