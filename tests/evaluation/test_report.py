"""A report is made from a run's own files: what its tables say, whatever state the run is in."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from polybeast_moe.errors import UserError
from polybeast_moe.evaluation import plots
from polybeast_moe.evaluation.report import PhaseRow, phase_table, print_phase_table, write_report
from polybeast_moe.evaluation.report_data import read_run
from polybeast_moe.evaluation.tables import bucket_shares, phase_rows, verdicts
from polybeast_moe.monitoring.sinks import CsvSink

EXPERTS = ("survival", "combat", "exploration", "general")
PHASES = ("warmup", "transition", "finetune", "deep_finetune")


def write_config(run_dir: Path, targets: Mapping[str, Any] | None = None, phases: Iterable[str] = PHASES) -> None:
    config = {
        "seed": 7,
        "env": {"task": "NetHackScore-v0", "character": "mon-hum-neu-mal"},
        "phases": [{"name": name} for name in phases],
        "targets": dict(targets or {}),
    }
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def metrics_row(
    frames: int, wall: float, phase: str, alpha: float = 0.5, usage: float = 1.2, **more: Any
) -> dict[str, Any]:
    shares = {f"expert_{name}_share": share for name, share in zip(EXPERTS, (0.4, 0.3, 0.2, 0.1), strict=True)}
    entropies = {"alpha_entropy": alpha, "usage_entropy": usage, "routing_information": usage - alpha}
    rest = {"router_temperature": 0.7, "policy_entropy": 2.0, "policy_lag": 1.5}
    return {"frames": frames, "wall_seconds": wall, "phase": phase, **entropies, **shares, **rest, **more}


def episode_row(episode: int, frames: int, phase: str, score: float) -> dict[str, Any]:
    return {
        "episode": episode, "frames": frames, "phase": phase, "score": score, "return": score, "length": 100,
        "depth": 1, "gold": min(score, 2), "how_done": 0, "alpha_entropy": 0.4,
    }  # fmt: skip


def write_rows(run_dir: Path, metrics: list[dict[str, Any]], episodes: list[dict[str, Any]]) -> None:
    sink = CsvSink(run_dir, EXPERTS)
    sink.episodes(episodes)
    for row in metrics:
        sink.metrics(row)
    sink.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A whole run: four phases of ten rows and fifty episodes each, and a random policy."""
    rng = np.random.default_rng(3)
    path = tmp_path / "a <run> & more"
    path.mkdir()
    targets = {
        "finetune": {"mean_score": {"at_least": 5}, "alpha_entropy": {"within": [0.0, 0.1]}},
        "deep_finetune": {"score_sd": {"at_most": 1000}, "max_score": {"at_least": 1e6}},
    }
    write_config(path, targets)
    metrics, episodes = [], []
    frames, wall = 0, 0.0
    for index, phase in enumerate(PHASES):
        for _ in range(10):
            frames += int(rng.integers(5_000, 40_000))
            wall += float(rng.uniform(2, 9))
            metrics.append(metrics_row(frames, wall, phase, rng.uniform(0.2, 1.3), rng.uniform(1.3, 1.38)))
            for _ in range(5):
                score = float(rng.exponential(12 * (index + 1)) // 1)
                episodes.append(episode_row(len(episodes), frames - 100, phase, score))
    write_rows(path, metrics, episodes)
    random = [{"score": float(s), "length": 300, "return": float(s)} for s in rng.exponential(10, 60) // 1]
    (path / "random_policy.json").write_text(json.dumps({"episodes": random}))
    return path


def test_the_phase_table_equals_the_definitions(run_dir: Path) -> None:
    metrics = np.genfromtxt(run_dir / "metrics.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    episodes = np.genfromtxt(run_dir / "episodes.csv", delimiter=",", names=True, dtype=None, encoding="utf-8")
    rows = phase_table(run_dir)
    assert [row.phase for row in rows] == [*PHASES, "random policy"]
    end_before, wall_before = 0, 0.0
    for row in rows[:-1]:
        here = metrics[metrics["phase"] == row.phase]
        scores = episodes["score"][episodes["phase"] == row.phase]
        spans = np.diff([end_before, *here["frames"]])
        mean_alpha = (spans * here["alpha_entropy"]).sum() / spans.sum()
        mean_usage = (spans * here["usage_entropy"]).sum() / spans.sum()
        sd_alpha = math.sqrt((spans * here["alpha_entropy"] ** 2).sum() / spans.sum() - mean_alpha**2)
        seconds = here["wall_seconds"][-1] - wall_before
        expected = PhaseRow(
            row.phase, 50, int(spans.sum()), seconds / 60, spans.sum() / seconds, scores.mean(),
            scores.std(ddof=1) / 50**0.5, scores.std(ddof=1), np.median(scores), scores.max(),
            mean_alpha, sd_alpha, mean_usage, mean_usage - mean_alpha,
        )  # fmt: skip
        for name, value in vars(expected).items():
            assert getattr(row, name) == pytest.approx(value) if name != "phase" else row.phase == value, name
        end_before, wall_before = here["frames"][-1], here["wall_seconds"][-1]
    assert rows[-1].episodes == 60
    assert rows[-1].frames == 60 * 300
    assert rows[-1].alpha_entropy is None


def test_each_target_gets_its_verdict(run_dir: Path) -> None:
    run = read_run(run_dir)
    results = {(v.phase, v.figure): v.result for v in verdicts(run, phase_rows(run))}
    assert results == {
        ("finetune", "mean_score"): "met",
        ("finetune", "alpha_entropy"): "missed",
        ("deep_finetune", "score_sd"): "met",
        ("deep_finetune", "max_score"): "missed",
    }


def test_fewer_than_thirty_episodes_get_no_verdict(run_dir: Path) -> None:
    run = read_run(run_dir)
    for count, results in ((29, {"too few episodes"}), (30, {"met", "missed"})):
        rows = [replace(row, episodes=count) for row in phase_rows(run)]
        assert {verdict.result for verdict in verdicts(run, rows)} == results


def test_an_unknown_target_names_the_nearest(tmp_path: Path) -> None:
    write_config(tmp_path, {"finetune": {"mean_scor": {"at_least": 1}}})
    with pytest.raises(UserError, match=r"targets\.finetune\.mean_scor .*'mean_score'"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


def test_bucket_shares_hold_every_score_once() -> None:
    scores = np.array([-3, 0, 4.9, 5, 9, 10, 20, 49, 50, 99, 100, 5000])
    assert (bucket_shares(scores) * 12).tolist() == pytest.approx([3, 2, 1, 2, 2, 2])
    assert bucket_shares(np.empty(0)).sum() == 0


def test_the_page_is_whole_and_needs_no_network(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    assert page.count("data:image/png;base64,") == len(list((run_dir / "report").glob("*.png"))) >= 9
    sources = re.findall(r"(?:src|href)\s*=\s*[\"']([^\"']*)", page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert {source for source in sources if source[0] == "#"} == {
        f"#{name}" for name in re.findall(r' id="(.*?)"', page)
    }
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script", re.sub(r"base64,[A-Za-z0-9+/=]*", "", page))
    assert "a &lt;run&gt; &amp; more" in page
    assert all(word in page for word in (*PHASES, "random policy", "Targets", "✗"))


def test_the_markdown_twin_has_the_same_numbers_and_its_plots_exist(run_dir: Path) -> None:
    page = write_report(run_dir).read_text()
    markdown = (run_dir / "report" / "report.md").read_text()
    plots = re.findall(r"\((\w+\.png)\)", markdown)
    assert sorted(plots) == sorted(path.name for path in (run_dir / "report").glob("*.png"))
    cells = {cell.strip() for line in markdown.splitlines() if line.startswith("|") for cell in line.split("|")}
    plain = page.replace("&nbsp;", " ")
    assert all(f">{cell}</t" in plain for cell in cells - {"", "---", "---:"})


def test_held_out_scores_are_a_curve_of_the_score_plot(run_dir: Path) -> None:
    def labels() -> list[str]:
        return list(plots.score_plot(read_run(run_dir)).axes[0].get_legend_handles_labels()[1])

    assert "held-out games" not in labels()
    lines = (run_dir / "metrics.csv").read_text().splitlines()
    at = lines[0].split(",").index("held_out_score")
    cells = lines[-1].split(",")
    cells[at : at + 3] = ["12.5", "1.5", "1000"]  # score, standard error, frames
    (run_dir / "metrics.csv").write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
    assert "held-out games" in labels()


def test_a_report_again_replaces_the_first(run_dir: Path) -> None:
    before = {path.name for path in write_report(run_dir).parent.iterdir()}
    assert {path.name for path in write_report(run_dir).parent.iterdir()} == before


UNFINISHED = {
    "nothing but a configuration": ([], []),
    "one row": ([metrics_row(100, 5.0, "warmup")], []),
    "one row without figures": ([{"frames": 100, "wall_seconds": 5.0, "phase": "warmup"}], []),
    "one episode": ([metrics_row(100, 5.0, "warmup")], [episode_row(0, 50, "warmup", 3.0)]),
    "episodes before the first row": ([], [episode_row(0, 50, "warmup", -1.0), episode_row(1, 50, "warmup", 0.0)]),
    "a phase without episodes": (
        [metrics_row(100, 5.0, "warmup"), metrics_row(200, 9.0, "transition"), metrics_row(300, 12.0, "finetune")],
        [episode_row(0, 50, "warmup", 3.0), episode_row(1, 250, "finetune", 8.0)],
    ),
    "figures that are not numbers": (
        [metrics_row(100, 5.0, "warmup", alpha=math.nan), metrics_row(200, 9.0, "warmup", usage=math.inf)],
        [],
    ),
}


@pytest.mark.parametrize(("metrics", "episodes"), UNFINISHED.values(), ids=UNFINISHED.keys())
def test_a_run_of_any_length_has_a_report(tmp_path: Path, metrics: list[Any], episodes: list[Any]) -> None:
    write_config(tmp_path, {"warmup": {"mean_score": {"at_least": 5}}})
    write_rows(tmp_path, metrics, episodes)
    assert "warmup" in write_report(tmp_path).read_text()
    rows = phase_table(tmp_path)
    assert [row.phase for row in rows] == list(PHASES)
    assert sum(row.episodes for row in rows) == len(episodes)


def test_lines_still_being_written_are_left_out(run_dir: Path) -> None:
    before = phase_table(run_dir)
    for name, half in (("metrics.csv", "999999,12"), ("episodes.csv", "200,1,deep_fin"), ("phases.jsonl", '{"time"')):
        with (run_dir / name).open("a") as file:
            file.write(half)
    assert phase_table(run_dir) == before
    whole = (run_dir / "metrics.csv").read_bytes()
    (run_dir / "metrics.csv").write_bytes(whole[: whole.index(b"\n") // 2])
    assert all(row.frames == 0 for row in phase_table(run_dir)[:-1])
    write_report(run_dir)


def test_a_phase_outside_the_configuration_is_still_told(run_dir: Path) -> None:
    write_config(run_dir, phases=PHASES[:2])
    assert [row.phase for row in phase_table(run_dir)] == [*PHASES, "random policy"]


def test_a_run_from_another_runs_snapshot_counts_its_own_frames(tmp_path: Path) -> None:
    write_config(tmp_path)
    rows = [
        metrics_row(1_001_000, 500.0, "finetune", frames_per_second=100.0),
        metrics_row(1_003_000, 520.0, "finetune"),
    ]
    write_rows(tmp_path, rows, [])
    (tmp_path / "phases.jsonl").write_text(json.dumps({"frames": 1_000_000, "key": "phase"}) + "\n")
    row = phase_table(tmp_path)[2]
    assert row.frames == 3_000
    assert row.minutes == pytest.approx((10 + 20) / 60)


def test_a_phase_may_be_called_on_or_off(tmp_path: Path) -> None:
    """As the trainer reads `config.yaml` (YAML 1.2), not as PyYAML does by itself (1.1: two booleans)."""
    (tmp_path / "config.yaml").write_text("phases:\n- name: on\n- name: off\n")
    write_rows(tmp_path, [metrics_row(100, 1.0, "on"), metrics_row(200, 2.0, "off")], [])
    assert read_run(tmp_path).phases == ["on", "off"]


def test_a_directory_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [80, 100])
def test_the_phase_table_fits_the_terminal(run_dir: Path, width: int) -> None:
    rows = phase_table(run_dir)
    rows[-2] = replace(
        rows[-2], mean_score=123.4, standard_error=12.3, max_score=12345.0, frames=12_345_678, episodes=7000
    )
    rows[-2] = replace(rows[-2], score_sd=123.4, minutes=1234.5, frames_per_second=12345.0, median_score=123.5)
    output = io.StringIO()
    print_phase_table(rows, Console(file=output, width=width))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    text = output.getvalue()
    assert "…" not in text
    assert all(word in text for word in (*PHASES, "123.4 ± 12.3", "12345", "12.3 M", "123.5", "random policy"))
