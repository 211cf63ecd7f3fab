"""The main job, for a few seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(120)
@pytest.mark.xdist_group("live")
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rf_jobs", "demo", "--seconds", "6", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["ok"]
    assert {name for name, row in summary["checks"].items() if not row["ok"]} == set()
    assert summary["states"]["completed"] == summary["dispatched"] == summary["completed"]
    assert summary["reclaimed"] > 0
    assert summary["replayed"] == 1
    assert summary["retries"] > 0
