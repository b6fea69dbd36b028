"""The page of a long run says what its files say, and refuses an evaluation of another snapshot."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FRAMES = 2_000_000


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run as its files show it: forty episodes, the score of the i-th is i."""
    folder = tmp_path / "run"
    folder.mkdir()
    with (folder / "episodes.csv").open("w", newline="") as text:
        rows = csv.writer(text)
        rows.writerow(["frames", "score", "depth", "length", "turns"])
        rows.writerows([(i + 1) * FRAMES // 40 - 1, i, 1 + i % 2, 50, 60] for i in range(40))
    (folder / "metrics.csv").write_text(f"frames,wall_seconds\n{FRAMES},200\n")
    return folder


@pytest.fixture
def played() -> dict[str, Any]:
    """What `evaluate --json` writes, as far as the page reads it."""
    return {
        "episodes": 1000,
        "seed": 7,
        "trained_frames": FRAMES,
        "mean_score": 123.0,
        "mean_score_interval": [120.0, 126.0],
        "median_score": 99.0,
        "score_quartiles": [50.0, 150.0],
        "max_score": 1234.0,
        "score_parts": {"depth": 40.0, "gold": 3.0, "experience": 80.0},
        "mean_depth": 1.8,
        "max_depth": 6,
        "mean_length": 1500.0,
        "deaths": {"killed by a jackal": 12, "killed by a newt": 30},
        "alpha_entropy": 0.4,
        "usage_entropy": 1.3,
        "smallest_share": 0.1,
    }


def write_page(run_dir: Path, played: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    shutil.copy(BENCHMARKS.parent / "docs" / "results" / "goals.yaml", run_dir.parent)
    evaluation = run_dir.parent / "evaluation.json"
    evaluation.write_text(json.dumps(played))
    command = [sys.executable, str(BENCHMARKS / "long_run.py"), str(run_dir), str(evaluation)]
    return subprocess.run([*command, "--folder", str(run_dir.parent)], capture_output=True, text=True)


def test_the_page_tells_curve_and_evaluation(run_dir: Path, played: dict[str, Any]) -> None:
    done = write_page(run_dir, played)
    assert done.returncode == 0, done.stderr
    page = (run_dir.parent / "long_run.md").read_text()
    assert "| frames that the long run consumed, millions ≥ 20 | 2 | 2 | 2 | no |" in page
    assert "2,000,000 frames in 0.06 hours (10,000 frames a second), 40 episodes" in page
    assert "| 0.1 | 2 | 0 ± 0 | 0 | 1.50 | 50 | 60 |" in page  # scores 0 and 1
    assert "| 2.0 | 2 | 38 ± 0 | 38 | 1.50 | 50 | 60 |" in page  # 38 and 39
    assert "| mean score, 95 % interval | 123 (120 to 126) |" in page
    assert "killed by a newt 30; killed by a jackal 12" in page
    assert (run_dir.parent / "long_run.png").stat().st_size > 1000


def test_an_evaluation_of_another_snapshot_is_refused(run_dir: Path, played: dict[str, Any]) -> None:
    done = write_page(run_dir, {**played, "trained_frames": 5})
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "played by a snapshot of 5 frames, but the run has 2,000,000: evaluate its newest snapshot" in done.stderr
    assert not (run_dir.parent / "long_run.md").exists()


def test_a_run_without_rows_is_refused(run_dir: Path, played: dict[str, Any]) -> None:
    (run_dir / "metrics.csv").unlink()
    done = write_page(run_dir, played)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "metrics.csv: no rows: is " in done.stderr
