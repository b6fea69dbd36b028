"""What a terminal shows of an evaluation."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from polybeast_moe.evaluation.printing import details, score_table


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 100.25, "high": value + 100.25}


@pytest.fixture
def figures() -> dict[str, Any]:
    experts = ("survival", "combat", "exploration", "general")
    deaths = {f"killed by a very large and poisonous soldier ant of kind {i}": 20 - i for i in range(12)}
    return {
        "name": "a-run-with-a-long-name/10506240", "policy": "trained", "episodes": 1000, "seed": 2**40,
        "mean_score": 1234.5, "standard_error": 12.3, "mean_score_interval": [1200.1, 1260.9], "median_score": 1100.0,
        "score_quartiles": [900.0, 1500.0], "interquartile_mean": 1111.1, "score_cv": 0.75, "max_score": 98765.0,
        "mean_length": 4321.0, "score_parts": {"experience": 1000.0, "depth": 200.0, "gold": 34.5},
        "mean_depth": 3.21, "max_depth": 11, "ends": {"killed": 900, "alive at the step limit": 100}, "deaths": deaths,
        "env": {"character": "mon-hum-neu-mal", "max_episode_steps": 5000}, "routing": "sparsemax",
        "temperature": 0.0123, "alpha_entropy": 0.4, "usage_entropy": 1.2,
        "expert_shares": dict.fromkeys(experts, 0.25),
        "specialisation": {
            **{f"{name}_information": interval(0.1) for name in ("scene", "previous_action", "step")},
            "dominant_shares": {scene: {"expert": scene, "value": 0.7} for scene in experts},
            "jensen_shannon": interval(0.3), "support_sizes": {"mean": 1.6},
        },
        "ablations": {
            "gates shuffled between scenes": {
                "score_lost": interval(300.0), "perturbation": {"score_lost": interval(20.0)},
                "beyond_perturbation": interval(280.0), "divergence": 1.23,
            }
        },
        "frames": 4_321_000, "frames_per_second": 12_345.0,
    }  # fmt: skip


def test_details_fit_eighty_columns(figures: dict[str, Any]) -> None:
    assert max(map(len, details(figures).splitlines())) <= 80


def test_details_name_what_killed_most_and_count_the_rest(figures: dict[str, Any]) -> None:
    figures["deaths"] = {f"killed by {i}": 20 - i for i in range(12)}
    text = " ".join(details(figures).split())
    assert "deaths killed by 0 20, killed by 1 19" in text
    assert "anything else 42" in text  # 12 + 11 + 10 + 9


def test_nobody_who_died_of_nothing_is_listed(figures: dict[str, Any]) -> None:
    assert "deaths" not in details(figures | {"deaths": {}})


def test_the_table_fits_eighty_columns(figures: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    Console(width=80).print(score_table([figures, figures]))
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    assert any("1234.5 ± 12.3" in line for line in printed)
