"""The short form of `make chaos`: a real run whose processes are killed at random moments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import BENCHMARKS, carried_out, ends_well

pytestmark = pytest.mark.timeout(900)


def test_twenty_kills_harm_no_rollout_and_leave_nothing(tmp_path: Path) -> None:
    """Nobody seems to hang because the machine is busy."""
    figures = tmp_path / "chaos.json"
    options = ["--kills", 20, "--interval", 0.1, "--recoveries", 0, "--hung-after", 60, "--json", figures]
    ends_well(carried_out(tmp_path, BENCHMARKS / "chaos.py", *options))
    found = json.loads(figures.read_text())
    assert found["violations"] == 0
    assert found["kills"] == found["restarts"] == 20
    assert not list(tmp_path.glob("chaos-*"))
