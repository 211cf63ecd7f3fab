"""``python -m rf_jobs``: the command line."""

from __future__ import annotations

import sys

from rf_jobs.cli import main

if __name__ == "__main__":
    sys.exit(main())
