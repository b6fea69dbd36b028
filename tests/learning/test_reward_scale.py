"""Rewards divided by their running scale: blind to units, one look a batch, and remembered."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from tiny_policy import ENDS, TinyPolicy, config, make_batch, phase, update
from torch import Tensor

from polybeast_moe.config import RewardConfig
from polybeast_moe.learning.learner import Learner
from polybeast_moe.learning.reward_scale import RewardScale


def test_normalised_rewards_are_blind_to_their_scale_and_keep_their_zero() -> None:
    batch, seen = make_batch(ENDS), []
    for scale in (1.0, 50.0):
        reward = RewardConfig(transform="none", normalise=True)
        learner, _, report = update(replace(batch, reward=batch.reward * scale), phase(), reward=reward)
        seen.append(report.diagnostics["loss_baseline"])
    assert seen[0] == pytest.approx(seen[1], rel=1e-5)
    by_hand = batch.reward / batch.reward.square().mean().sqrt()
    _, _, wanted = update(replace(batch, reward=by_hand), phase(), reward=RewardConfig(transform="none"))
    assert seen[0] == pytest.approx(wanted.diagnostics["loss_baseline"], rel=1e-5)
    twin = Learner(TinyPolicy(), config(reward=reward))
    twin.restore(copy.deepcopy(learner.optimizer_state()), learner.version)
    calm = replace(batch, reward=batch.reward)
    for one in (learner, twin):  # the scale of 50 is remembered
        assert one.update(calm, phase()).diagnostics["loss_baseline"] < 0.9 * seen[0]


def test_the_scale_of_rewards_is_a_mean_over_updates_without_the_bias_of_its_beginning() -> None:
    scale, rewards = RewardScale(), torch.tensor([[3.0, 4.0]])

    def mean_square_after(rewards: Tensor, updates: int = 1) -> float:
        for _ in range(updates):
            scale.take(rewards.square().mean().item())
        return scale.normalised(rewards).square().mean().item()

    for _ in range(3):
        assert mean_square_after(rewards) == pytest.approx(1)
    assert math.isnan(mean_square_after(torch.full((1, 2), math.nan)))
    assert mean_square_after(rewards) == pytest.approx(1)  # nothing of it was kept
    assert mean_square_after(10 * rewards, updates=1000) == pytest.approx(1, rel=1e-3)


def test_the_scale_of_rewards_takes_in_a_batch_once_however_many_passes_are_made() -> None:
    reward = RewardConfig(transform="none", normalise=True)
    once, often = (Learner(TinyPolicy(), config(reward=reward, passes=passes)) for passes in (1, 3))
    for scale in (1.0, 50.0):
        for learner in (once, often):
            batch = make_batch(ENDS)
            learner.update(replace(batch, reward=scale * batch.reward), phase(1e-3))
    assert often.optimizer_state()["reward_scale"] == once.optimizer_state()["reward_scale"]
