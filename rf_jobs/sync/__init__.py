"""The synchronous twin of ``QueueManager``, for code without an event loop: ``from rf_jobs.sync import QueueManager``.

The names and parameters are those of the async manager; each method waits for its answer. The work is done by the async
manager on the process's background loop (docs/decisions/0002-sync-portal.md), so threads may share one and their dispatches
go together.
"""

from rf_jobs.sync.manager import QueueManager
from rf_jobs.sync.parts import LeasedSyncJob, SyncBatchHandle, SyncLimits, SyncSchedules

__all__ = ["LeasedSyncJob", "QueueManager", "SyncBatchHandle", "SyncLimits", "SyncSchedules"]
