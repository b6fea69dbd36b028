"""Runs side by side: which settings differ, by how much scores do, and how sure that is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from polybeast_moe import cli
from polybeast_moe.evaluation.comparison import configuration_differences, differences, mean_difference, names
from polybeast_moe.evaluation.report import write_comparison
from polybeast_moe.evaluation.report_data import read_run
from polybeast_moe.monitoring.sinks import CsvSink


def make_run(folder: Path, mean: float, temperature: float, seed: int, episodes: int = 200) -> Path:
    folder.mkdir(parents=True)
    phases = [{"name": "warmup", "temperature": 1.0}, {"name": "finetune", "temperature": temperature}]
    (folder / "config.yaml").write_text(yaml.safe_dump({"seed": seed, "phases": phases}))
    sink = CsvSink(folder, ("combat", "general"))
    rng = np.random.default_rng(seed)
    scores = rng.exponential(mean, episodes).round()
    rows = [
        {"episode": i, "frames": 10 * i, "phase": "warmup" if i < episodes // 2 else "finetune", "score": score}
        for i, score in enumerate(scores, 1)
    ]
    sink.episodes(rows)
    for i in range(1, 11):
        sink.metrics(
            {"frames": 10 * episodes * i // 10, "wall_seconds": 5.0 * i, "alpha_entropy": temperature}
            | {"phase": "warmup" if i <= 5 else "finetune"}
        )
    sink.close()
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "a", 20, 0.5, 1), make_run(tmp_path / "b", 60, 0.2, 2)]


def test_only_what_differs_is_listed(runs: list[Path]) -> None:
    found = configuration_differences([read_run(path) for path in runs])
    assert found == {"seed": [1, 2], "phases.finetune.temperature": [0.5, 0.2]}


def test_differences_are_run_minus_first_within_their_interval(runs: list[Path]) -> None:
    first, second = (read_run(path) for path in runs)
    found = {(one.phase, one.run): one for one in differences([first, second])}
    assert list(found) == [("warmup", "a"), ("warmup", "b"), ("finetune", "a"), ("finetune", "b")]
    assert found["finetune", "a"].mean_score is None
    one = found["finetune", "b"]
    means = [
        run.episodes.floats("score")[run.episodes.strings("phase") == "finetune"].mean() for run in (first, second)
    ]
    assert one.mean_score == pytest.approx(means[1] - means[0])
    assert 0 < one.low < one.mean_score < one.high
    assert one.alpha_entropy == pytest.approx(0.2 - 0.5)
    assert one.frames_per_second == pytest.approx(1.0)


def test_the_interval_covers_the_true_difference_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        low, high = mean_difference(rng.exponential(30, 100), rng.exponential(20, 100), seed=trial)
        covered += low <= 10 <= high
    assert 88 <= covered <= 99


def test_runs_of_one_name_are_told_apart(runs: list[Path]) -> None:
    a, b = (read_run(path) for path in runs)
    assert names([a, b, a]) == ["a (1)", "b", "a (3)"]


def test_the_command_compares_runs_and_writes_into_the_first(runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["report", *map(str, runs)]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == runs[0] / "report" / "comparison" / "index.html"
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert re.search(r"\+\d+\.\d \[\+\d+\.\d, \+\d+\.\d\]", text)
    assert not (runs[1] / "report").exists()


def test_a_run_of_any_length_can_be_compared(runs: list[Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.yaml").write_text("seed: 3\n")
    one = make_run(tmp_path / "one", 5.0, 1.0, 4, episodes=1)
    assert "empty" in write_comparison([runs[0], empty, one], tmp_path / "out").read_text()
    assert "empty" in write_comparison([empty, empty], tmp_path / "out").read_text()


def test_an_output_folder_is_for_several_runs(runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["report", str(runs[0]), "--output", "x"]) == 2
    assert "--output is for several runs" in capsys.readouterr().err
