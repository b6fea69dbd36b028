"""What ranks make of an update together, without processes."""

from __future__ import annotations

import math

import pytest
from torch import nn

from polybeast_moe.errors import RunFailed
from polybeast_moe.learning.learner import UpdateReport
from polybeast_moe.learning.rank_rounds import RankUpdate, RunState, digest, together, until


def rank_update(frames: int, entropy: float, alpha: list[float], norm: float = 2.0, episodes: int = 0) -> RankUpdate:
    diagnostics = {"alpha_entropy": entropy, "grad_norm": norm} if frames else {"grad_norm": norm}
    return RankUpdate(
        frames, UpdateReport(diagnostics, alpha, True), [{"score": frames} for _ in range(episodes)], ["hello"]
    )


def test_means_are_weighted_by_frames_and_the_gradient_is_everybodys() -> None:
    seen = together(
        [
            rank_update(30, 1.0, [1.0, 0.0], episodes=1),
            rank_update(0, 0.0, []),
            rank_update(10, 0.2, [0.2, 0.8], episodes=2),
        ]
    )
    assert seen.frames == 40
    usage_entropy = -0.8 * math.log(0.8) - 0.2 * math.log(0.2)  # of everybody's mean alpha, not the mean of entropies
    assert seen.report.diagnostics == {
        "alpha_entropy": pytest.approx(0.8),
        "grad_norm": 2.0,
        "smallest_share": pytest.approx(0.2),
        "usage_entropy": pytest.approx(usage_entropy),
        "routing_information": pytest.approx(usage_entropy - 0.8),
    }
    assert seen.report.mean_alpha == pytest.approx([0.8, 0.2])
    assert [episode["score"] for episode in seen.episodes] == [30, 10, 10]
    assert seen.messages == ["rank 0: hello", "rank 1: hello", "rank 2: hello"]


def test_a_gradient_that_is_not_finite_is_everybodys_too() -> None:
    seen = together([rank_update(30, 1.0, [1.0], math.nan), rank_update(30, 1.0, [1.0], math.nan)])
    assert math.isnan(seen.report.diagnostics["grad_norm"])


def test_ranks_that_applied_different_gradients_do_not_go_on() -> None:
    with pytest.raises(RunFailed, match=r"different gradients: rank 0 2\.0, rank 1 2\.5"):
        together([rank_update(30, 1.0, [1.0]), rank_update(30, 1.0, [1.0], norm=2.5)])


def test_a_digest_is_of_every_weight() -> None:
    layer = nn.Linear(2, 2)
    before = digest(layer)
    assert digest(layer) == before
    nn.init.constant_(layer.bias[1:], layer.bias[1].detach().item() + 1e-6)
    assert digest(layer) != before


def test_patience_ends_and_so_does_an_interrupted_wait() -> None:
    assert until(0.0, lambda: False)()
    assert not until(60.0, lambda: False)()
    assert until(60.0, lambda: True)()


def test_a_rank_that_was_not_there_has_no_state() -> None:
    state = RunState({}, {}, 0, 0, [{"of": 1}])
    assert state.of(1) == {"of": 1}
    assert state.of(2) is None
