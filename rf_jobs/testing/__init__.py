"""For the tests of programs that use rf-jobs: stand-ins without a server, and a real one whose clock can be moved.

Nothing below this package imports it, and production code has no need to.
"""

from rf_jobs.model.context import FakeContext
from rf_jobs.model.notes import Line, Notes
from rf_jobs.testing.clock import Clock
from rf_jobs.testing.dispatched import Dispatched, DispatchedGroup
from rf_jobs.testing.draining import Dead, Drained, drain
from rf_jobs.testing.fake import FakeQueue
from rf_jobs.testing.inline import InlineQueue, Ran, inline

__all__ = [
    "Clock", "Dead", "Dispatched", "DispatchedGroup", "Drained", "FakeContext", "FakeQueue", "InlineQueue", "Line", "Notes", "Ran", "drain",
    "inline",
]  # fmt: skip
