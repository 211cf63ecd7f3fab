"""The root of the commands: which there are, loading them when asked for, and what becomes of their errors."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from rf_jobs.cli.exits import Exit, exit_code
from rf_jobs.words.errors import RfJobsError
from rf_jobs.words.printing import clean

COMMANDS: dict[str, str] = {
    "worker": "Run jobs, in supervised processes.",
    "scheduler": "Dispatch jobs when their schedules say so.",
    "exporter": "Serve metrics and health over HTTP.",
    "outbox": "Move jobs from a database's outbox to the server.",
    "dispatch": "Dispatch one job.",
    "queues": "List the queues.",
    "jobs": "List, look for, show, follow, move, cancel and await jobs.",
    "explain": "Say why a job is not running.",
    "trace": "Show a job's traces: its dispatch and every attempt.",
    "batches": "List, show, cancel and retry batches and chains.",
    "failed": "List, show, retry and forget dead letters.",
    "pause": "Stop queues, job classes or tags.",
    "resume": "Let queues, job classes or tags run again.",
    "limits": "List limits, and change them while jobs run.",
    "schedules": "List, show, add, pause, trigger and remove schedules.",
    "workers": "List the worker processes.",
    "top": "Watch queues, workers and running jobs live.",
    "check": "Compare the code with what waits in the queues.",
    "doctor": "Check server, workers, queues and jobs.",
    "rules": "Write Prometheus' recording and alert rules.",
    "grafana": "Write Grafana's dashboards.",
    "config": "Show the effective settings and their origins.",
    "keys": "Make keys for encryption and signing, and list them.",
    "dev": "Everything for development: server, worker, exporter.",
    "demo": "See it work: a small shop with failures and a crash.",
    "bench": "Measure this machine and server, quickly.",
}
"""Name and first line of help. Each is the object of that name in ``rf_jobs.cli.commands.<name>``."""


class App(click.Group):
    """The group of all commands. They are imported one by one, so that a worker does not load what others need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"rf_jobs.cli.commands.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            click.echo(nl=False)  # a pipe that is closed shows here at the latest
        except BrokenPipeError:  # click would make it 1, which says something else here
            return _pipe_closed()
        return result

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """What click's test runner and ``run`` call: ends with ``SystemExit``."""
        words = list(sys.argv[1:] if args is None else args)
        extra["prog_name"] = "rf-jobs"
        extra["standalone_mode"] = False
        sys.exit(guarded(lambda: super(App, self).main(words, *rest, **extra), words))

    def run(self, args: Sequence[str] | None = None) -> int:
        """Run and answer with the exit code."""
        try:
            self.main(args)
        except SystemExit as end:
            return int(end.code or 0)
        return 0


def _pipe_closed() -> int:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing more is to be written there at the end either
    return Exit.PIPE_CLOSED


def guarded(action: Any, words: list[str]) -> int:
    """Run ``action``; whatever it raises becomes a clear message and an exit code."""
    try:
        result = action()
        return int(result) if isinstance(result, int) else Exit.OK
    except click.exceptions.Exit as end:
        return end.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return Exit.INTERRUPTED
    except click.ClickException as error:
        if "--json" in words:
            _report_json(error.format_message(), "UsageError", Exit.USAGE)
        else:
            error.show()
        return Exit.USAGE
    except (RfJobsError, TimeoutError) as error:
        return report(error, as_json="--json" in words, verbose="--verbose" in words or "-v" in words)
    except Exception as error:
        traceback.print_exc()
        if "--json" in words:
            _report_json(str(error), type(error).__name__, Exit.BUG)
        return Exit.BUG


def report(error: Exception, *, as_json: bool, verbose: bool) -> int:
    """Say what went wrong: one line on standard error, or one JSON document on standard output."""
    code = exit_code(error)
    if verbose:
        traceback.print_exception(error)
    if as_json:
        _report_json(str(error), type(error).__name__, code)
    elif not verbose:
        click.echo(f"{click.style('error:', fg='red')} {clean(str(error), lines=True)}", err=True)
    return code


def _report_json(message: str, kind: str, code: int) -> None:
    click.echo(json.dumps({"error": {"type": kind, "message": message, "exit_code": int(code)}}, ensure_ascii=False))


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from rf_jobs.words.version import package_version  # noqa: PLC0415 (not needed otherwise)

        click.echo(f"rf-jobs {package_version()}")
        ctx.exit()


@click.group(
    cls=App,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Every command takes --help. Settings come from rf-jobs.toml, RF_JOBS_* variables and options, in that order.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def app() -> None:
    """Background jobs on Redis that you can see through."""
