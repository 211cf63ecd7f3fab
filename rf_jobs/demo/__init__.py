"""The demo: a small shop that runs on rf-jobs, with everything that can go wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DemoOptions:
    """``seconds``: how long jobs are dispatched, None: until Ctrl-C. ``json``: the summary is one document on stdout."""

    seconds: float | None = None
    json: bool = False


def run_demo(options: DemoOptions) -> int:
    """Run the demo; 0 only if nothing was lost and every job on show reached the state that it should.

    Raises ``ConfigError`` where the ``demo`` extra is not installed.
    """
    from rf_jobs.words.errors import ConfigError  # noqa: PLC0415

    try:
        from rf_jobs.demo.run import run  # noqa: PLC0415 (loads what only the demo needs)
    except ModuleNotFoundError as error:
        raise ConfigError(f'the demo needs {error.name}; install it with: pip install "rf-jobs[demo]"') from None
    return run(options)
