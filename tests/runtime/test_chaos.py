"""The short form of `make chaos`: a real run whose processes are killed at random moments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


def test_twenty_kills_harm_no_rollout_and_leave_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "chaos.json"
    command = [sys.executable, str(CHAOS), "--kills", "20", "--interval", "0.1", "--recoveries", "0", "--json", figures]
    result = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(figures.read_text())
    assert found["violations"] == 0
    assert found["kills"] == found["restarts"] == 20
    assert not list(tmp_path.glob("chaos-*"))
