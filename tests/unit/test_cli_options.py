"""The options that are made from the tables of settings."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from rf_jobs.cli.app import COMMANDS, app
from rf_jobs.words.config_keys import KEYS


def options_of(command: click.Command) -> set[str]:
    return {name for option in command.params if isinstance(option, click.Option) for name in option.opts}


def leaves(group: click.Group, ctx: click.Context) -> list[click.Command]:
    found: list[click.Command] = []
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        found += leaves(command, ctx) if isinstance(command, click.Group) else [command]
    return found


def test_every_command_takes_the_common_options() -> None:
    ctx = click.Context(app)
    commands = leaves(app, ctx)
    assert len(commands) >= len(COMMANDS)
    for command in commands:
        assert {"--json", "--verbose"} <= options_of(command), command.name
        settings = {"--redis-url", "--namespace", "--config"}
        # The demo has a server and settings of its own.
        assert settings & options_of(command) == (set() if command.name == "demo" else settings), command.name


def test_every_command_says_what_it_is_for() -> None:
    for command in leaves(app, click.Context(app)):
        assert command.help, command.name


def test_a_worker_takes_all_its_settings_by_their_names() -> None:
    worker = app.get_command(click.Context(app), "worker")
    assert worker is not None
    names = {
        "--" + key.name.replace("_", "-") for key in KEYS.values() if key.section in {"jobs", "worker", "telemetry"}
    }
    assert names - {"--sets"} <= options_of(worker)
    assert "--set" in options_of(worker), "one at a time"


def test_an_exporter_takes_all_its_settings_by_their_names() -> None:
    exporter = app.get_command(click.Context(app), "exporter")
    assert exporter is not None
    assert {"--host", "--port", "--cache-seconds", "--metric-namespace"} <= options_of(exporter)


@pytest.mark.parametrize("command", ["worker", "queues", "dispatch", "doctor"])
def test_help_loads_nothing_heavy(command: str) -> None:
    code = f"""if True:
        import sys
        import rf_jobs.cli
        assert "click" not in sys.modules, "importing rf_jobs.cli is to be cheap"
        rf_jobs.cli.main([{command!r}, "--help"])
        heavy = ("rich", "aiohttp", "prometheus_client", "opentelemetry.sdk", "croniter", "rf_jobs_exporter", "rf_jobs.demo")
        sys.exit(" ".join(name for name in heavy if name in sys.modules) or 0)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
