"""scripts/setup-test-tools, with programs that only say what they were asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

SCRIPT = ROOT / "scripts" / "setup-test-tools"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH without the programs that the tests run, for a user who is not root."""
    for name in ("sh", "tr", "cat", "env"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    fakes = {"id": "echo 1000", "apt-get": f"echo apt-get >>{tmp_path}/asked", "sudo": 'echo "sudo $*" >>"$ASKED"'}
    for name, line in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(tools: Path) -> tuple[int, str, list[str]]:
    asked = tools / "asked"
    asked.touch()
    done = subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        env={"PATH": str(tools), "ASKED": str(asked)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr, asked.read_text().splitlines()


def test_who_may_use_sudo_without_a_password_is_not_asked_to(tools: Path) -> None:
    code, _, asked = run(tools)
    assert code == 0
    assert asked == ["sudo -n true", f"sudo -n env PATH={tools} sh {SCRIPT}"]


def test_where_sudo_wants_a_password_it_says_what_to_install(tools: Path) -> None:
    (tools / "sudo").write_text('#!/bin/sh\necho "sudo $*" >>"$ASKED"\nexit 1\n')
    code, errors, asked = run(tools)
    assert (code, asked) == (1, ["sudo -n true"])
    assert "apt-get install --no-install-recommends redis-server prometheus prometheus-alertmanager" in errors


def test_where_there_is_no_sudo_it_says_what_to_install(tools: Path) -> None:
    (tools / "sudo").unlink()
    code, errors, asked = run(tools)
    assert (code, asked) == (1, [])
    assert "sudo apt-get update" in errors
