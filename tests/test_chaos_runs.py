"""The short form of the second half of `make chaos`: whole runs killed, resumed, and equal to the run nobody killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHAOS = Path(__file__).parents[1] / "benchmarks" / "chaos_runs.py"


def test_three_kills_of_a_whole_run_cost_a_cadence_each_and_change_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "chaos.json"
    command = [sys.executable, str(CHAOS), "--kills", "3", "--asynchronous-kills", "0", "--json", str(figures)]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(figures.read_text())["inline"]
    assert (found["violations"], found["bitwise_equal_to_an_unkilled_run"]) == (0, True)
    assert found["kills"] >= 3
    assert found["kills_inside_writing"] >= 1
