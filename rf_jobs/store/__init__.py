"""Everything that knows Redis: keys, scripts, commands as values, and the executors that run them."""

from rf_jobs.store import lean as lean  # first of all: see there
