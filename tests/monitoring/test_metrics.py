"""A row of metrics is the frame-weighted summary of its window, and a resumed window goes on exactly."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polybeast_moe.learning.usage import entropy
from polybeast_moe.monitoring.columns import metric_columns
from polybeast_moe.monitoring.metrics import LAST_EPISODES, MetricsWindow

EXPERTS = ("survival", "combat", "exploration", "general")


def close_row(window: MetricsWindow, frames: int = 0, wall_seconds: float = 1.0, **columns: Any) -> dict[str, Any]:
    return window.row(frames=frames, episodes=0, updates=0, wall_seconds=wall_seconds, **columns)


def alphas(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([0.3] * len(EXPERTS), rows)


@given(st.integers(0, 2**32), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_entropies_are_those_of_all_the_windows_states(seed: int, updates: list[int]) -> None:
    window = MetricsWindow(EXPERTS)
    batches = [alphas(seed + index, rows) for index, rows in enumerate(updates)]
    for batch in batches:
        mean_entropy = -(batch * np.log(batch, where=batch > 0, out=np.zeros_like(batch))).sum(1).mean()
        window.update(len(batch), {"alpha_entropy": mean_entropy}, batch.mean(0))
    row = close_row(window)
    states = np.concatenate(batches)
    mean = states.mean(0)
    assert row["alpha_entropy"] == pytest.approx(np.mean([entropy(state) for state in states]))
    assert row["usage_entropy"] == pytest.approx(entropy(mean))
    assert row["routing_information"] == row["usage_entropy"] - row["alpha_entropy"]
    assert row["routing_information"] >= -1e-12
    assert [row[f"expert_{name}_share"] for name in EXPERTS] == pytest.approx(mean)


def test_experts_that_take_turns_have_high_usage_and_no_alpha_entropy() -> None:
    window = MetricsWindow(("a", "b"))
    window.update(10, {"alpha_entropy": 0.0}, [1.0, 0.0])
    window.update(10, {"alpha_entropy": 0.0}, [0.0, 1.0])
    row = close_row(window)
    assert row["usage_entropy"] == pytest.approx(math.log(2))
    assert row["routing_information"] == pytest.approx(math.log(2))


def test_means_are_weighted_by_frames_and_start_afresh_after_a_row() -> None:
    window = MetricsWindow(EXPERTS)
    window.update(1, {"loss_total": 10.0})
    window.update(3, {"loss_total": 2.0, "grad_norm": 7.0})
    row = close_row(window)
    assert row["loss_total"] == 4.0
    assert row["grad_norm"] == 7.0
    window.update(5, {"loss_total": -1.0})
    row = close_row(window, wall_seconds=2.0)
    assert row["loss_total"] == -1.0
    assert "grad_norm" not in row


def test_speed_and_shares_are_of_the_window() -> None:
    window = MetricsWindow(EXPERTS)
    window.update(1000, {})
    close_row(window, wall_seconds=100.0)
    window.update(600, {})
    window.spent("engine", 0.5)
    window.spent("engine", 0.25)
    window.spent("update", 1.0)
    row = close_row(window, wall_seconds=103.0)
    assert row["frames_per_second"] == 200.0
    assert (row["engine_share"], row["inference_share"], row["update_share"]) == (0.25, 0.0, pytest.approx(1 / 3))
    assert row["engine_us_per_frame"] == pytest.approx(1250.0)


def test_episode_means_look_back_on_the_last_hundred() -> None:
    window = MetricsWindow(EXPERTS)
    assert "mean_episode_score" not in close_row(window)
    for score in range(250):
        window.episode(score, -score)
    last = range(250 - LAST_EPISODES, 250)
    assert window.scores == tuple(last)
    assert close_row(window)["mean_episode_score"] == np.mean(last)
    assert close_row(window, wall_seconds=2.0)["mean_episode_return"] == -np.mean(last)


def test_an_empty_window_makes_a_row_of_totals() -> None:
    row = close_row(MetricsWindow(EXPERTS), frames=5, wall_seconds=0.0, phase="warmup")
    assert row == {"frames": 5, "episodes": 0, "updates": 0, "wall_seconds": 0.0, "phase": "warmup"}
    assert set(row) <= set(metric_columns(EXPERTS))


def test_weights_for_other_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="3 weights for 4 experts"):
        MetricsWindow(EXPERTS).update(1, {}, [0.3, 0.3, 0.4])


def test_a_run_that_begins_with_anothers_episodes_has_a_clock_of_its_own() -> None:
    window = MetricsWindow(EXPERTS)
    window.episode(7.0, 1.0)
    close_row(window, wall_seconds=5000.0)
    window.update(100, {"grad_norm": 1.0})
    window.begin_anew()
    window.update(10, {"grad_norm": 3.0})
    row = close_row(window, wall_seconds=2.0)
    assert (row["frames_per_second"], row["grad_norm"], row["mean_episode_score"]) == (5.0, 3.0, 7.0)


def test_a_restored_window_writes_the_same_rows() -> None:
    def half(window: MetricsWindow, seed: int) -> None:
        for index, alpha in enumerate(alphas(seed, 7)):
            window.update(10 + index, {"alpha_entropy": entropy(alpha), "loss_total": 0.1 * index}, alpha)
            window.spent("inference", 0.1)
            window.episode(index * seed, index)

    straight = MetricsWindow(EXPERTS)
    for seed in range(20):
        half(straight, seed)
    first_row = close_row(straight, wall_seconds=3.7)
    half(straight, 21)
    resumed = MetricsWindow(EXPERTS)
    resumed.restore(json.loads(json.dumps(straight.state())))
    for window in (straight, resumed):
        half(window, 22)
    row = close_row(straight, wall_seconds=9.1)
    assert row == close_row(resumed, wall_seconds=9.1)
    assert row != first_row
