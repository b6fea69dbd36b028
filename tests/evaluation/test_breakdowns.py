"""Segments, what scores are made of, and how games ended, against a plain reading of the same episodes."""

from __future__ import annotations

import numpy as np
import pytest

from polybeast_moe.evaluation.breakdowns import (
    MAX_SEGMENTS,
    ending_names,
    endings,
    score_parts,
    segments,
)
from polybeast_moe.evaluation.report_data import EMPTY, DataTable, RunData
from polybeast_moe.evaluation.score import depth_score


def run_of(columns: dict[str, list[object]], random: DataTable | None = None) -> RunData:
    length = len(next(iter(columns.values())))
    texts = {name: ["" if value is None else str(value) for value in values] for name, values in columns.items()}
    return RunData("run", {}, EMPTY, DataTable(texts, length), (), random)


def test_segments_are_five_hundred_episodes_in_their_order() -> None:
    rng = np.random.default_rng(1)
    scores = rng.exponential(20, 1203).round()
    phases = ["warmup"] * 700 + ["finetune"] * 503
    run = run_of({"score": [*scores], "phase": phases, "frames": [*range(1203)], "alpha_entropy": [0.5] * 1203})
    found = segments(run)
    assert [(one.first, one.last, one.phases) for one in found] == [
        (1, 500, ("warmup",)), (501, 1000, ("warmup", "finetune")), (1001, 1203, ("finetune",)),
    ]  # fmt: skip
    for one, part in zip(found, (scores[:500], scores[500:1000], scores[1000:]), strict=True):
        assert one.mean_score == pytest.approx(part.mean())
        assert one.standard_error == pytest.approx(part.std(ddof=1) / len(part) ** 0.5)
        assert (one.median_score, one.max_score) == (np.median(part), part.max())
        assert one.alpha_entropy == pytest.approx(0.5)


def test_a_long_run_has_longer_segments() -> None:
    count = 500 * MAX_SEGMENTS + 1
    run = run_of({"score": [1.0] * count, "phase": ["a"] * count, "frames": [1] * count})
    assert [one.last - one.first + 1 for one in segments(run)] == [1000] * (MAX_SEGMENTS // 2) + [1]


def test_the_parts_of_a_score_add_up_to_it() -> None:
    run = run_of(
        {
            "phase": ["a", "a", "b", "b"],
            "score": [75, 20, 30, 7],
            "depth": [2, 1, 1, 1],
            "gold": [5, -300, 30, None],  # a loss of gold costs nothing; nothing is said of a game without a record
        }
    )
    first, second = score_parts(run)
    assert first.parts == {"experience": (20 + 20) / 2, "depth": 25.0, "gold": 2.5}
    assert (second.phase, second.episodes, second.parts) == ("b", 1, {"experience": 0.0, "depth": 0.0, "gold": 30.0})
    assert sum(first.parts.values()) == first.mean_score


def test_deep_levels_are_worth_more() -> None:
    assert depth_score(np.array([1.0, 2.0, 20.0, 21.0, 31.0])).tolist() == [0, 50, 950, 2000, 11_500]


def test_a_run_without_gold_has_no_parts() -> None:
    assert score_parts(run_of({"phase": ["a"], "score": [3], "depth": [1]})) == []


def test_endings_are_named_and_shares_sum_to_one() -> None:
    random = DataTable({"how_done": ["0", "99"], "length": ["10", "30"], "depth": ["1", "4"]}, 2)
    deaths = {"death": ["", "", "died of starvation"]}
    columns = {"phase": ["a", "a", "a"], "how_done": [-1, -1, 3], "length": [5, 5, 8], "depth": [1, 1, 1]}
    run = run_of(columns | deaths, random)
    trained, other = endings(run)
    assert trained.shares == pytest.approx({"alive at the step limit": 2 / 3, "starved": 1 / 3})
    assert (trained.deaths, other.deaths) == ({"died of starvation": 1}, {})
    assert (trained.mean_length, trained.mean_depth, trained.max_depth) == (6.0, 1.0, 1.0)
    assert (other.phase, other.max_depth) == ("random policy", 4.0)
    assert ending_names([trained, other])[0] == "alive at the step limit"
    assert set(ending_names([trained, other])) == {"alive at the step limit", "starved", "killed", "end 99"}
