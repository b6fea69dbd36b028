"""The short form of the second half of `make chaos`: whole runs killed, resumed, and equal to the run nobody killed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import carried_out, ends_well

pytestmark = pytest.mark.timeout(900)

# Writing a snapshot takes long enough to be met by a kill, and whatever a busy machine takes costs no more than itself.
UNHURRIED = """
import os, sys, time
import chaos_runs

chaos_runs.SLACK = 120.0
genuine = os.fsync
os.fsync = lambda descriptor: (time.sleep(0.02), genuine(descriptor))
sys.exit(chaos_runs.main())
"""


def test_three_kills_of_a_whole_run_cost_what_follows_a_snapshot_and_change_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "chaos.json"
    ends_well(carried_out(tmp_path, "-c", UNHURRIED, "--kills", 3, "--asynchronous-kills", 0, "--json", figures))
    found = json.loads(figures.read_text())["inline"]
    assert (found["violations"], found["bitwise_equal_to_an_unkilled_run"]) == (0, True)
    assert found["kills"] >= 3
    assert found["kills_inside_writing"] >= 1
