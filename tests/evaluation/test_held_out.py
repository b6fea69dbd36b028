"""Held-out evaluation beside training: real snapshots, a real process, and what its trainer learns of it."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from run_files import newest, rows
from waiting import PATIENCE, wait_until
from whole_runs import train

from polybeast_moe.config import EvaluationConfig
from polybeast_moe.control.client import send
from polybeast_moe.control.protocol import Command
from polybeast_moe.evaluation.held_out import HeldOutEvaluation
from polybeast_moe.snapshots.directory import all_snapshots

OFTEN = EvaluationConfig(every_seconds=1e-3, episodes=4, share=1.0)


@pytest.fixture
def run(make_config, tmp_path: Path, no_report) -> Path:
    assert train(make_config("snapshots.every_seconds=1e-9"), tmp_path / "run") == 0
    return tmp_path / "run"


def test_the_newest_snapshot_is_evaluated_once_and_the_best_is_remembered(run: Path, tmp_path: Path) -> None:
    said: list[str] = []
    held_out = HeldOutEvaluation(OFTEN, 2, tmp_path / "log", said.append)
    newest = all_snapshots(run / "snapshots")[-1]
    time.sleep(0.01)
    assert held_out.look(newest) == {}
    assert held_out.kept == {newest.name}  # while it is being evaluated
    found = wait_until(lambda: held_out.look(newest))
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
    wait_until(lambda: held_out.look(old))
    assert held_out.look(new) == {}
    assert held_out._underway is None
    assert held_out._due_at - time.monotonic() > 100  # seconds of work, a thousandth of two cores
    held_out.close()


def test_a_failure_is_told_and_costs_the_evaluation_alone(tmp_path: Path) -> None:
    said: list[str] = []
    held_out = HeldOutEvaluation(OFTEN, 2, tmp_path / "run.log", said.append)
    wait_until(lambda: held_out.look(tmp_path / "step-000000000001") or said)
    assert said == ["the evaluation of step-000000000001 failed (see run.log); training goes on"]
    assert "no such directory" in (tmp_path / "run.log").read_text()
    assert held_out.kept == frozenset()
    held_out.close()


def test_off_without_a_cadence(tmp_path: Path) -> None:
    held_out = HeldOutEvaluation(EvaluationConfig(), 2, tmp_path / "log", print)
    assert held_out.look(tmp_path) == {}
    assert held_out._underway is None


def test_its_curve_is_in_the_metrics_and_the_best_snapshot_stays(tiny_file: Path, tmp_path: Path, begin) -> None:
    """A whole run: an evaluation comes in while it trains on, and the snapshot it was of is still there at the end."""
    run = tmp_path / "run"
    overrides = ["snapshots.every_seconds=1", "snapshots.keep_last=1", "monitoring.every_seconds=0.5"]
    overrides += ["evaluation={every_seconds: 1, episodes: 2, share: 1}", "phases.transition.until.frames=100_000_000"]
    process = begin("train", tiny_file, "--run-dir", run, *overrides)
    wait_until(lambda: evaluated(run), process)
    send(run, Command("stop"))
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    measured = evaluated(run)
    assert all(float(row["held_out_frames"]) < int(row["frames"]) for row in measured)
    remembered = newest(run).state["held_out"]
    assert remembered["score"] >= max(float(row["held_out_score"]) for row in measured)
    assert remembered["best"] in [path.name for path in all_snapshots(run / "snapshots")]


def evaluated(run: Path) -> list[dict[str, str]]:
    """The rows with an evaluation."""
    return [row for row in rows(run) if row["held_out_score"]]
