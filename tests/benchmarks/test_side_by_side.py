"""The comparison's runner and its page: what has a row is not run again, and every figure comes from rows."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path

import pytest
from scripts import GOALS, imported

MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "load_average_before": 0.1,
    "python": "3.11.7",
    "versions": {"torch": "2.13.0"},
    "commit": "abc",
}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch):
    yield from imported(monkeypatch, "side_by_side", "peers.page", "peers.compare", "peers.plan", "results")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(GOALS, tmp_path / "goals.yaml")
    return tmp_path


def call(modules, monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["side_by_side.py", *map(str, words)])
    return modules.side_by_side.main()


def row(arm: str, index: int, speed: float, **more: object) -> dict:
    return {"arm": arm, "index": index, "status": "finished", "frames_per_second": speed, **more}


def test_ratios_are_of_rounds_that_both_have(modules) -> None:
    rows = [row("ours", 1, 40), row("ours", 2, 60), row("ours", 3, 50), row("peer", 1, 20), row("peer", 3, 10)]
    rows.append({"arm": "peer", "index": 2, "status": "failed", "reason": "it hung"})
    assert modules.compare.ratios(rows, "ours", "peer") == (3.5, 2.0, 5.0)
    assert modules.compare.figures(rows, "ours", "frames_per_second") == (50, 40, 60)
    assert math.isnan(modules.compare.ratios(rows, "ours", "nobody").value)


def test_the_better_inline_mode_of_each_round_counts(modules) -> None:
    rows = [row("a", 1, 10), row("b", 1, 20), row("a", 2, 30), row("b", 2, 25)]
    best = modules.compare.best_per_round(rows, ["a", "b"], "inline")
    assert [(one["arm"], one["index"], one["frames_per_second"]) for one in best] == [
        ("inline", 1, 20),
        ("inline", 2, 30),
    ]


def test_a_ratio_of_means_has_the_interval_that_repeated_draws_give(modules) -> None:
    import numpy as np

    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(400):
        over, under = rng.normal(30, 5, 5), rng.normal(20, 4, 5)
        found = modules.compare.ratio_of_means(list(over), list(under))
        inside += found.low <= 1.5 <= found.high
    assert 0.92 < inside / 400 < 0.985
    assert modules.compare.ratio_of_means([2.0, 2.0], [1.0, 1.0]) == (2.0, 2.0, 2.0)
    assert math.isnan(modules.compare.ratio_of_means([2.0], [1.0]).low)
    assert math.isnan(modules.compare.ratio_of_means([2.0], [-1.0]).value)


def learnt(arm: str, seed: int, score: float, frames: float) -> dict:
    curve = [
        {"seconds": 60.0 * minute, "frames": frames * minute / 30, "score": score * minute / 30, "episodes": 500}
        for minute in range(1, 31)
    ]
    return row(arm, seed, 1.0, curve=curve, last_score=score)


def test_scores_are_compared_with_the_peer_that_does_best_against_us(modules) -> None:
    rows = [learnt("ours", seed, 60.0 + seed, 9e6) for seed in range(5)]
    rows += [learnt("slow", seed, 20.0, 3e6) for seed in range(5)] + [
        learnt("fast", seed, 30.0, 9e6) for seed in range(5)
    ]
    at_the_end = modules.compare.worst_ratio(rows, "ours", ["slow", "fast"], at_equal_frames=False)
    assert at_the_end.value == pytest.approx(62 / 30)
    equal = modules.compare.worst_ratio(rows, "ours", ["slow", "fast"], at_equal_frames=True)
    assert equal.value == pytest.approx(62 / 3 / 20)  # against the slow one, after its three million frames
    assert at_the_end.low < at_the_end.value < at_the_end.high


def write_rows(modules, folder: Path) -> None:
    """Rows of the committed plan as if everything but most of the learning had been run: figures are made up."""
    plan, rows = modules.plan.read_plan(), {}
    speeds = {"ours": 6000.0, "inline": 5000.0, "inline_one_thread": 5500.0, "plain_loop": 20.0}
    for task in plan.tasks():
        name, arm = task.measurement.name, task.arm
        if task.measurement.learning and task.index > 4:
            continue
        settings = modules.plan.settings_of(plan, task, rows)
        speed = speeds.get(arm.name, 1000.0) + task.index
        more: dict = {"plan": modules.plan.fingerprint(task, settings), "settings": settings, "machine": MACHINE}
        more |= {"environments": 8, "parameters": 9, "pss_bytes": 8e8, "progress": [[0, 0]]}
        more["pss_bytes_per_environment"] = 1e7 if arm.reference else 8e7
        if name == "recovery":
            hangs = arm.name == "monobeast"
            more["kill"] = {
                "workers": 2,
                "workers_at_the_end": 1 if hangs else 2,
                "seconds": None if hangs else 1.5,
                "watched": 60.0,
                "share_at_the_end": 0.5 if hangs else 1.0,
            }
        if task.measurement.learning:
            more |= learnt(arm.name, task.index, (60.0 if arm.reference else 25.0) + task.index, 1e6)
        made = row(
            arm.name, task.index, speed, **{k: v for k, v in more.items() if k not in ("arm", "index", "status")}
        )
        made["frames_per_second"] = speed
        if name == "search" and arm.name == "monobeast" and task.index == 8:
            made = {key: made[key] for key in ("arm", "index", "plan", "settings", "machine")}
            made |= {"status": "failed", "reason": "it hung"}
        rows.setdefault(name, []).append(made)
        modules.side_by_side.append(made, folder / "peers" / f"{name}.jsonl")


def test_the_page_is_made_of_rows_and_judged_by_goals(modules, folder: Path, monkeypatch) -> None:
    write_rows(modules, folder)
    assert call(modules, monkeypatch, "--results", "--out", folder) == 0
    report = json.loads((folder / "benchmarks.json").read_text())
    goals = {goal["name"]: goal for goal in report["goals"]}
    middle = (modules.plan.read_plan(modules.plan.PLAN).measurement("same_network").rounds + 1) // 2
    assert goals["same_net_monobeast"]["measured"] == pytest.approx((6000 + middle) / (1000 + middle))
    assert goals["same_net_monobeast"]["met"] is False
    assert goals["plain_loop_reference"]["met"] is True
    assert goals["async_over_inline"]["measured"] == pytest.approx((6000 + middle) / (5500 + middle))
    assert goals["memory_per_env"]["measured"] == pytest.approx(1 / 8)
    assert goals["score_30min"]["met"] is True
    assert goals["score_equal_frames"]["met"] is True
    text = (folder / "benchmarks.md").read_text()
    for expected in (
        "| monobeast | 1 | not within 60 s | 50% | 1 of 2 |",
        "Still to be run: 5 of learning.",
        "| monobeast | num_actors 8, batch_size 32, unroll_length 32, num_learner_threads 1, num_buffers 64, "
        "torch_threads 2 | failed |",
        "![learning curves](benchmarks.png)",
        "python benchmarks/side_by_side.py",
        "a processor",
        "in the peer's loop, times its own: `monobeast` 1.00",
        "| sample_factory | sample-factory 2.1.1, nle 1.3.0, gymnasium 0.29.1",
    ):
        assert expected in text
    assert (folder / "benchmarks.png").stat().st_size < 150_000


def test_what_has_a_row_is_not_run_again(modules, folder: Path, monkeypatch, capsys) -> None:
    write_rows(modules, folder)
    assert call(modules, monkeypatch, "--dry-run", "--out", folder) == 0
    said = capsys.readouterr().out
    assert "5 are left: about 150 minutes" in said
    assert said.count("1 runs") == 5


def test_a_row_is_appended_as_its_task_ends(modules, folder: Path, monkeypatch, capsys) -> None:
    played: list[dict] = []

    def adapter(system: str, job) -> dict:
        if job.settings["runtime.games_per_group"] == 128:
            raise modules.side_by_side.Failed("no result, exit code 3: too many games")
        played.append(job.settings)
        return {"frames_per_second": 100.0 + len(played), "pss_bytes_per_environment": 1e6, "progress": [[1, 1]]}

    monkeypatch.setattr(modules.side_by_side, "run_adapter", adapter)
    words = ("--only", "search", "--arms", "ours", "--out", folder)
    assert call(modules, monkeypatch, *words) == 0
    rows = modules.plan.read_rows(folder / "peers")["search"]
    assert len(rows) == 8
    assert [one["index"] for one in rows if one["status"] == "failed"] == [3]
    assert "failed: no result, exit code 3: too many games" in capsys.readouterr().out
    file = folder / "peers" / "search.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:-1]) + lines[-1][:40])  # killed while it wrote
    assert call(modules, monkeypatch, *words) == 0
    assert len(played) == 8
    assert len(modules.plan.read_rows(folder / "peers")["search"]) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "serach"], "no measurement 'serach'; did you mean"),
        (["--arms", "our"], "--arms our: the plan has no such arm"),
        (["--seconds", "3"], "give --out FOLDER"),
    ],
)
def test_a_wrong_command_is_told_in_a_line(modules, monkeypatch, capsys, words, message: str) -> None:
    assert call(modules, monkeypatch, *words, "--dry-run") == 2
    assert message in capsys.readouterr().err


def test_there_is_no_page_without_rows(modules, folder: Path, monkeypatch, capsys) -> None:
    assert call(modules, monkeypatch, "--results", "--out", folder) == 2
    assert "no rows yet" in capsys.readouterr().err
