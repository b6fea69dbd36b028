"""The pipeline's page is made of the raw files of its benchmarks, each goal of the right ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scripts import GOALS, imported


@pytest.fixture
def pipeline_results(monkeypatch: pytest.MonkeyPatch):
    for modules in imported(monkeypatch, "pipeline_results"):
        yield modules.pipeline_results


def windows(*speeds: float) -> dict[str, list[dict[str, float]]]:
    """Three windows a round: the middle one is the round's figure."""
    rounds = [(number, speed + by) for number, speed in enumerate(speeds, 1) for by in (-5, 0, 900)]
    return {"raw_windows": [{"round": number, "frames_per_second": speed} for number, speed in rounds]}


RAW = {
    "efficiency": {
        "rounds": [
            {"alone": {"engine": 40_000, "inference": 20_000, "update": 10_000}, "efficiency": efficiency}
            for efficiency in (0.8, 0.9, 0.88)
        ]
    },
    "modes": {
        "variants": {
            "configured": windows(6000, 6300, 6100),
            "inline": windows(4000, 4100, 5000),
            "inline, one thread": windows(4800, 4200, 4000),
        }
    },
    "joints": {
        "wake_up": {"medians_us": [14, 15, 19]},
        "throughput": {"rounds": [{"pipeline": 93, "alone": 100}, {"pipeline": 95, "alone": 100}] * 3},
        "memory": [{"pss_with_all_pages_of_private_files_mib": 30.0}] * 3,
    },
    "recovery": {"recoveries": [{"process": "a", "seconds": 1.5}, {"process": "b", "seconds": None}]},
}


def test_each_goal_is_measured_by_its_benchmark(pipeline_results) -> None:
    measured = pipeline_results.measured_goals(RAW)
    assert measured["pipeline_efficiency"] == (0.88, 0.8, 0.9)
    assert measured["frames_per_second"] == (6100, 6000, 6300)
    assert measured["async_over_inline"] == pytest.approx((1.25, 1.22, 1.5))
    assert measured["free_policy_share"].value == pytest.approx(0.94)
    assert measured["wakeup_us"] == (15, 14, 19)
    assert measured["pss_per_actor_mb"].value == pytest.approx(31.457, abs=1e-3)
    assert measured["recovery_seconds"].value == pipeline_results.NEVER  # the slowest kill is what counts


def test_the_model_adds_costs_and_deals_out_cores(pipeline_results) -> None:
    cost = pipeline_results.costs(RAW["efficiency"]["rounds"], cores=2)
    assert cost == {"engine": 50.0, "inference": 100.0, "update": 200.0}
    assert pipeline_results.model(cost, 1) == pytest.approx((1e6 / 350, 1e6 / 350))
    asynchronous, inline = pipeline_results.model(cost, 4)
    assert asynchronous == pytest.approx(4e6 / 350)
    assert inline == pytest.approx(1e6 / (50 + 75))


def test_the_models_row_of_the_machine_measured_is_the_measurement(pipeline_results) -> None:
    cost = {"engine": 50.0, "inference": 100.0, "update": 200.0}
    rows = pipeline_results.model_table(cost, 2, 4000.0, 3000.0).splitlines()
    assert "| 2 | 4,000 | 3,000 | 1.33 |" in rows
    assert "| 4 | 8,000 | 4,800 | 1.67 |" in rows


def test_the_page_names_every_goal_and_the_commands(pipeline_results, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "goals.yaml").write_text(GOALS.read_text())
    genuine = pipeline_results.results.write
    monkeypatch.setattr(pipeline_results.results, "write", lambda *a, **k: genuine(*a, **k, folder=tmp_path))
    judged = pipeline_results.write_page(RAW, pipeline_results.results.machine())
    kept = json.loads((tmp_path / "pipeline.json").read_text())
    assert kept["goals"] == judged
    assert {goal["name"]: goal["met"] for goal in judged}["recovery_seconds"] is False
    page = (tmp_path / "pipeline.md").read_text()
    assert "b not within 20 s" in page
    assert "python benchmarks/chaos.py --kills 0 --recoveries 6" in page
