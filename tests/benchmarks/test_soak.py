"""The short form of `make soak`: a real run, watched for seconds, an actor killed on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scripts import BENCHMARKS, carried_out, ends_well, imported

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch):
    for modules in imported(monkeypatch, "soak"):
        yield modules.soak


def test_a_short_soak_sees_every_process_and_no_unexpected_death(tiny_file: Path, tmp_path: Path) -> None:
    options = ["--minutes", 0.2, "--every", 1, "--kills", 1, "--config", tiny_file, "--json", tmp_path / "soak.json"]
    ends_well(carried_out(tmp_path, BENCHMARKS / "soak.py", *options, "runtime.mode=asynchronous"))
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["figures"]["unexpected_restarts"] == 0
    assert [death["process"] for death in found["kills"]] == ["pbm-actor-0.0"]
    last = found["samples"][-1]
    assert last["frames"] > found["samples"][0]["frames"]
    assert {"pbm-learner-0", "pbm-policy-0", "pbm-actor-0.0"} <= last["processes"].keys()
    assert all(min(process.values()) > 0 for process in last["processes"].values())
    assert not list(tmp_path.glob("soak-*"))


def test_drift_is_the_slope_over_the_mean(soak) -> None:
    hours = np.linspace(0, 1, 361)
    noise = np.random.default_rng(1).normal(0, 1, len(hours))
    steady, rising = soak.drift(hours, 200 + noise), soak.drift(hours, 200 + 4 * hours + noise)
    assert steady.low < 0 < steady.high
    assert rising.value == pytest.approx(4 / 202 * 100, abs=0.3)
    assert 0 < rising.low < rising.value < rising.high
