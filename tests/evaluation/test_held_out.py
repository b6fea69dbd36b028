"""Held-out evaluation beside training: real snapshots, a real process, and what its trainer learns of it."""

from __future__ import annotations

import csv
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from polybeast_moe import trainer
from polybeast_moe.config import EvaluationConfig
from polybeast_moe.control.client import send
from polybeast_moe.control.protocol import Command
from polybeast_moe.evaluation.held_out import HeldOutEvaluation
from polybeast_moe.run_directory import RunDirectory
from polybeast_moe.snapshots import load
from polybeast_moe.snapshots.directory import all_snapshots

pytestmark = pytest.mark.usefixtures("one_thread")

OFTEN = EvaluationConfig(every_seconds=1e-3, episodes=4, share=1.0)


@pytest.fixture
def run(make_config, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(trainer, "write_report", lambda path: path)
    config = make_config("snapshots.every_seconds=1e-9")
    with RunDirectory.create(tmp_path / "run", config) as directory:
        assert trainer.train(config, directory) == 0
    return tmp_path / "run"


def wait_for(held_out: HeldOutEvaluation, newest: Path) -> dict[str, float]:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := held_out.look(newest):
            return found
        time.sleep(0.05)
    raise AssertionError("no evaluation")


def test_the_newest_snapshot_is_evaluated_once_and_the_best_is_remembered(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    held_out = HeldOutEvaluation(OFTEN, 2, tmp_path / "log", said.append)
    newest = all_snapshots(run / "snapshots")[-1]
    time.sleep(0.01)
    assert held_out.look(newest) == {}
    assert held_out.kept == {newest.name}  # while it is being evaluated
    found = wait_for(held_out, newest)
    assert found["held_out_frames"] == 480
    assert math.isfinite(found["held_out_score"])
    assert said[0].startswith("held-out score")
    assert "at 480 frames (4 episodes)" in said[0]
    assert held_out.kept == {newest.name}  # the best so far
    time.sleep(0.01)
    assert held_out.look(newest) == {}
    assert held_out._underway is None, "nothing new to evaluate"
    resumed = HeldOutEvaluation(OFTEN, 2, tmp_path / "log", said.append)
    resumed.restore(held_out.state())
    assert resumed.kept == {newest.name}
    held_out.close()


def test_a_share_of_the_machine_is_all_that_it_takes(run: Path, tmp_path: Path) -> None:
    held_out = HeldOutEvaluation(OFTEN.model_copy(update={"share": 0.001}), 2, tmp_path / "log", print)
    old, new = all_snapshots(run / "snapshots")[-2:]
    time.sleep(0.01)
    wait_for(held_out, old)
    assert held_out.look(new) == {}
    assert held_out._underway is None
    assert held_out._due_at - time.monotonic() > 100  # seconds of work, a thousandth of two cores
    held_out.close()


def test_a_failure_is_told_and_costs_the_evaluation_alone(tmp_path: Path) -> None:
    said: list[str] = []
    held_out = HeldOutEvaluation(OFTEN, 2, tmp_path / "run.log", said.append)
    deadline = time.monotonic() + 60
    while not said and time.monotonic() < deadline:
        assert held_out.look(tmp_path / "step-000000000001") == {}
        time.sleep(0.05)
    assert said == ["the evaluation of step-000000000001 failed (see run.log); training goes on"]
    assert "no such directory" in (tmp_path / "run.log").read_text()
    assert held_out.kept == frozenset()
    held_out.close()


def test_off_without_a_cadence(tmp_path: Path) -> None:
    held_out = HeldOutEvaluation(EvaluationConfig(), 2, tmp_path / "log", print)
    assert held_out.look(tmp_path) == {}
    assert held_out._underway is None


def test_its_curve_is_in_the_metrics_and_the_best_snapshot_stays(tiny_file: Path, tmp_path: Path) -> None:
    """A whole run: an evaluation comes in while it trains on, and the snapshot it was of is still there at the end."""
    run = tmp_path / "run"
    overrides = ["snapshots.every_seconds=1", "snapshots.keep_last=1", "monitoring.every_seconds=0.5"]
    overrides += ["evaluation={every_seconds: 1, episodes: 2, share: 1}", "phases.transition.until.frames=100_000_000"]
    command = [sys.executable, "-m", "polybeast_moe", "train", str(tiny_file), "--run-dir", str(run), *overrides]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while not evaluated(run):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        send(run, Command("stop"))
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    measured = evaluated(run)
    assert all(float(row["held_out_frames"]) < int(row["frames"]) for row in measured)
    newest = load(all_snapshots(run / "snapshots")[-1]).state["held_out"]
    assert newest["score"] >= max(float(row["held_out_score"]) for row in measured)
    assert newest["best"] in [path.name for path in all_snapshots(run / "snapshots")]


def evaluated(run: Path) -> list[dict[str, str]]:
    """The rows with an evaluation."""
    if not (run / "metrics.csv").exists():
        return []
    text = (run / "metrics.csv").read_text()
    table = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [row for row in table if row["held_out_score"]]
