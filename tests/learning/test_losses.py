"""The losses as functions of tensors."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polybeast_moe import _C
from polybeast_moe.config import RewardConfig
from polybeast_moe.learning import losses

SCORES = st.lists(st.lists(st.floats(-3, 3), min_size=4, max_size=4), min_size=1, max_size=9)


def test_the_training_reward_is_a_weighted_sum() -> None:
    reward, terms = torch.randn(3, 2), torch.randn(3, 2, len(_C.REWARD_TERMS))
    alone = losses.training_reward(reward, None, {"task": 1.0, "gold": 0.0})
    assert torch.equal(alone, reward)
    assert torch.equal(losses.training_reward(reward, terms, {"task": -0.5}), -0.5 * reward)
    gold, death = _C.REWARD_TERMS.index("gold"), _C.REWARD_TERMS.index("death")
    mixed = losses.training_reward(reward, terms, {"task": 2.0, "gold": 0.5, "death": -3.0})
    assert torch.allclose(mixed, 2 * reward + 0.5 * terms[..., gold] - 3 * terms[..., death], atol=1e-6)
    with pytest.raises(ValueError, match="store no reward terms"):
        losses.training_reward(reward, None, {"task": 1.0, "gold": 0.5})


def test_rewards_are_kept_clipped_or_squashed() -> None:
    rewards = torch.tensor([-30.0, -5.0, 0.0, 5.0, 30.0])
    kept, clipped, squashed = (
        losses.transform_reward(rewards, RewardConfig(transform=name, scale=10.0)) for name in ("none", "clip", "tanh")
    )
    assert torch.equal(kept, rewards)
    assert clipped.tolist() == [-1.0, -0.5, 0.0, 0.5, 1.0]
    assert squashed.tolist() == pytest.approx([math.tanh(r / 10) for r in rewards.tolist()])


def test_symlog_keeps_small_rewards_and_orders_large_ones() -> None:
    """Where tanh takes a new level and the bonus for it for no more than a kill."""
    rewards = torch.tensor([-70.0, -0.01, 0.0, 0.01, 5.0, 15.0, 70.0])
    pressed = losses.transform_reward(rewards, RewardConfig(transform="symlog", scale=10.0)).tolist()
    assert pressed == pytest.approx([math.copysign(math.log(1 + abs(r) / 10), r) for r in rewards.tolist()], rel=1e-5)
    assert pressed[3] == pytest.approx(0.001, rel=1e-3)
    kill, level = pressed[5], pressed[6]
    assert level > 2 * kill
    squashed = losses.transform_reward(rewards, RewardConfig(transform="tanh", scale=10.0)).tolist()
    assert squashed[6] < 1.2 * squashed[5]


def test_the_policy_gradient_raises_what_did_well_and_leaves_the_advantage_alone() -> None:
    log_probs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -0.5]], requires_grad=True)
    losses.policy_gradient_loss(log_probs, advantages).backward()
    assert log_probs.grad.tolist() == [[-1.5, 0.25]]
    assert advantages.grad is None


def test_the_baseline_moves_to_its_target_which_stays() -> None:
    values, targets = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([2.0, 0.0], requires_grad=True)
    loss = losses.baseline_loss(values, targets)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (1 + 4) / 2)
    assert values.grad.tolist() == [-0.5, 1.0]
    assert targets.grad is None


def test_policy_entropy_of_a_uniform_and_of_a_certain_policy() -> None:
    assert losses.policy_entropy(torch.full((3, 2, 5), -math.log(5))).item() == pytest.approx(math.log(5))
    certain = torch.log_softmax(torch.tensor([[80.0, 0.0, 0.0]]), -1)
    assert losses.policy_entropy(certain).item() == pytest.approx(0.0, abs=1e-6)


@given(SCORES)
def test_load_balance_lies_between_even_use_and_one_expert(rows: list[list[float]]) -> None:
    loss = losses.load_balance_loss(torch.tensor(rows, dtype=torch.float64)).item()
    assert -1e-12 <= loss <= 3


def test_load_balance_is_zero_when_states_share_the_experts_evenly() -> None:
    """Each state may be certain of its expert: it is the mean over states that counts."""
    assert losses.load_balance_loss(50 * torch.eye(4)).item() == pytest.approx(0.0, abs=1e-6)
    assert losses.load_balance_loss(torch.tensor([[50.0, 0.0, 0.0, 0.0]] * 4)).item() == pytest.approx(3.0, abs=1e-6)


@given(SCORES)
def test_load_balance_descends_towards_balance(rows: list[list[float]]) -> None:
    scores = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    before = losses.load_balance_loss(scores)
    before.backward()
    with torch.no_grad():
        after = losses.load_balance_loss(scores - 1e-3 * scores.grad)
    assert after <= before + 1e-12


def test_load_balance_lifts_an_expert_that_nobody_uses() -> None:
    scores = torch.tensor([[1.0, 0.0, 0.0, -1.0]] * 3, requires_grad=True)  # off sparsemax's support at temperature 1
    losses.load_balance_loss(scores).backward()
    assert (scores.grad[:, 3] < 0).all()
    assert (scores.grad[:, 0] > 0).all()


def test_load_balance_sees_what_a_low_temperature_makes_of_small_leads() -> None:
    scores = torch.tensor([[0.1, 0.0, 0.0, 0.0]] * 3, requires_grad=True)  # one-hot at 0.05, all but even at 1
    pulls = []
    for temperature in (1.0, 0.05):
        (pull,) = torch.autograd.grad(losses.load_balance_loss(scores, temperature), scores)
        pulls.append(pull[0, 0].item())
    assert pulls[1] > 5 * pulls[0] > 0


def test_load_balance_is_as_strong_at_every_temperature() -> None:
    leads = torch.tensor([[1.0, 0.0, -0.5, 0.3]], requires_grad=True)
    pulls = []
    for temperature in (1.0, 0.1):
        scores = (leads * temperature).detach().requires_grad_()
        losses.load_balance_loss(scores, temperature).backward()
        pulls.append(scores.grad)
    assert torch.allclose(*pulls, rtol=1e-4)


def test_explained_variance_of_perfect_constant_and_opposite_baselines() -> None:
    targets = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert losses.explained_variance(targets, targets).item() == 1.0
    assert losses.explained_variance(torch.full((4,), 9.0), targets).item() == pytest.approx(0.0)
    assert losses.explained_variance(-targets, targets).item() == pytest.approx(-3.0)


def test_explained_variance_of_one_row_or_of_equal_targets_is_a_number() -> None:
    assert math.isfinite(losses.explained_variance(torch.ones(1), torch.ones(1)).item())
    assert math.isfinite(losses.explained_variance(torch.ones(4), torch.ones(4)).item())
