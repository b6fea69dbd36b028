"""Which losses an update minimises, and by how much: the router's, the experts', and those of the user's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_policy import ENDS, TinyPolicy, config, make_batch, phase, update
from torch import Tensor

from polybeast_moe.config import RewardConfig
from polybeast_moe.errors import UserError
from polybeast_moe.learning.learner import Learner, UpdateReport
from polybeast_moe.models.interface import PolicyOutput
from polybeast_moe.runtime.rollouts import Batch


def routed_for(updates: int, prior: bool = False, **weights: float) -> list[UpdateReport]:
    policy = TinyPolicy()
    policy.has_prior = prior
    with torch.no_grad():
        policy.router.bias.copy_(torch.tensor([1.5, 0.0, 0.0, -1.5]))
    learner = Learner(policy, config())
    batch = make_batch(ENDS)
    only = {"policy": 0.0, "baseline": 0.0, "entropy": 0.0, **weights}
    return [learner.update(batch, phase(3e-2, **only)) for _ in range(updates)]


def test_load_balance_evens_out_the_use_of_experts() -> None:
    first, *_, last = routed_for(60, load_balance=1.0)
    assert max(last.mean_alpha) - min(last.mean_alpha) < 0.4 * (max(first.mean_alpha) - min(first.mean_alpha))
    assert last.diagnostics["loss_load_balance"] < first.diagnostics["loss_load_balance"]


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_a_positive_weight_lowers_alpha_entropy_and_a_negative_one_raises_it(weight: float) -> None:
    first, *_, last = routed_for(40, alpha_entropy=weight)
    assert first.diagnostics["loss_alpha_entropy"] == pytest.approx(weight * first.diagnostics["alpha_entropy"])
    assert (last.diagnostics["alpha_entropy"] - first.diagnostics["alpha_entropy"]) * weight < -0.01


EXPERT_LOSSES = ("expert_diversity", "semantic_orthogonality", "temporal_consistency", "overlap")


@pytest.mark.parametrize("name", EXPERT_LOSSES)
def test_a_loss_with_a_weight_is_lowered_and_one_without_is_zero(name: str) -> None:
    first, *_, last = routed_for(40, **{name: 1.0})
    assert last.diagnostics[f"loss_{name}"] < first.diagnostics[f"loss_{name}"]
    assert first.diagnostics["loss_total"] == pytest.approx(first.diagnostics[f"loss_{name}"])
    for other in (*EXPERT_LOSSES, "alpha_entropy", "load_balance", "graph_alignment"):
        assert (first.diagnostics[f"loss_{other}"] != 0) == (other == name)
    assert (first.diagnostics[f"loss_{name}"] < 0) == (name == "expert_diversity")  # a bonus


@pytest.mark.parametrize("name", ["expert_diversity", "semantic_orthogonality", "overlap", "temporal_consistency"])
def test_logits_of_experts_without_weight_are_asked_for_only_where_experts_are_compared(name: str) -> None:
    _, policy, _ = update(make_batch({}), phase(**{name: 1.0}))
    compared = name in ("expert_diversity", "semantic_orthogonality")
    assert [call["every_expert"] for call in policy.calls] == [compared]


def test_alignment_without_a_graph_is_refused() -> None:
    with pytest.raises(UserError, match=r"losses.graph_alignment .* gives no operator_prior"):
        update(make_batch({}), phase(graph_alignment=1.0))
    with pytest.raises(UserError, match=r"losses.graph_smoothing .* gives no graph_moments"):
        update(make_batch({}), phase(graph_smoothing=1.0))


def test_alignment_follows_the_prior_of_the_rows_that_are_learnt_from() -> None:
    first, *_, last = routed_for(60, graph_alignment=1.0, prior=True)
    assert last.diagnostics["loss_graph_alignment"] < 0.5 * first.diagnostics["loss_graph_alignment"]


# Functions of the user's own.


def small_logits(output: PolicyOutput, batch: Batch) -> Tensor:
    return output.logits[: batch.steps * batch.games].square().mean()


def of_every_row(output: PolicyOutput, batch: Batch) -> Tensor:
    return output.value


def the_batch(rewards: Tensor, batch: Batch) -> Batch:
    return batch


def doubled(rewards: Tensor, batch: Batch) -> Tensor:
    return 2 * rewards


OWN_LOSS = {"extra_loss": f"{__name__}.small_logits"}
OWN_REWARD = {"reward": RewardConfig(function=f"{__name__}.doubled", normalise=True)}


def test_a_loss_of_ones_own_is_weighed_and_lowered() -> None:
    only = {"policy": 0.0, "baseline": 0.0, "entropy": 0.0}
    batch = make_batch(ENDS)
    assert update(batch, phase(), **OWN_LOSS)[2].diagnostics["loss_extra"] == 0
    policy = TinyPolicy()
    with torch.no_grad():
        output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
    learner = Learner(policy, config(**OWN_LOSS))
    first, *_, last = [learner.update(batch, phase(1e-2, extra=0.5, **only)).diagnostics for _ in range(20)]
    assert first["loss_extra"] == first["loss_total"] == pytest.approx(0.5 * small_logits(output, batch).item())
    assert last["loss_extra"] < 0.5 * first["loss_extra"]


def test_a_reward_of_ones_own_takes_the_place_of_the_weighted_sum() -> None:
    batch = make_batch(ENDS)
    _, _, wanted = update(replace(batch, reward=2 * batch.reward), phase(), reward=RewardConfig(normalise=True))
    learner, _, got = update(batch, phase(), **OWN_REWARD)
    assert got.diagnostics == wanted.diagnostics
    scale = learner.optimizer_state()["reward_scale"]
    assert scale["mean_square"] / scale["weight"] == pytest.approx(4 * batch.reward.square().mean().item())


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"extra_loss": "small_logits"}, "learner.extra_loss: 'small_logits' is not an import path"),
        ({"extra_loss": "nowhere.small_logits"}, "learner.extra_loss: cannot import 'nowhere'"),
        ({"extra_loss": f"{__name__}.small_logit"}, "did you mean 'small_logits'"),
        ({"extra_loss": f"{__name__}.of_every_row"}, r"must give a tensor of shape \[\], it gave a .* \[39\]"),
        ({"reward": RewardConfig(function=f"{__name__}.the_batch")}, r"shape \[12, 3\], it gave 'Batch'"),
    ],
)
def test_a_function_of_ones_own_that_will_not_do_is_refused_in_one_line(changes, wanted: str) -> None:
    with pytest.raises(UserError, match=wanted) as caught:
        update(make_batch(ENDS), phase(extra=1.0), **changes)
    assert "\n" not in str(caught.value)
