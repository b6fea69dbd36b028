"""The optimiser's step: its size, what it leaves out, and that it goes on exactly where a snapshot was taken."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tiny_policy import ENDS, A, B, E, T, TinyPolicy, config, make_batch, phase, update
from torch import Tensor, nn

from polybeast_moe.config import OptimizerConfig, RewardConfig
from polybeast_moe.learning.learner import Learner, make_optimizer
from polybeast_moe.models.interface import Observation, PolicyOutput
from polybeast_moe.runtime.rollouts import Batch


def weights_of(policy: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.state_dict().items()}


def test_gradients_are_clipped_to_their_norm_and_reported_as_they_were() -> None:
    batch = make_batch(ENDS)
    _, policy, free = update(batch, phase(), max_grad_norm=1e9)
    whole = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    assert free.diagnostics["grad_norm"] == pytest.approx(whole.norm().item(), rel=1e-5)
    _, policy, clipped = update(batch, phase(), max_grad_norm=0.01)
    cut = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    assert clipped.diagnostics["grad_norm"] == pytest.approx(free.diagnostics["grad_norm"], rel=1e-5)
    assert cut.norm().item() == pytest.approx(0.01, rel=1e-3)
    assert torch.allclose(cut / cut.norm(), whole / whole.norm(), atol=1e-5)


def test_the_phases_learning_rate_is_that_of_the_step() -> None:
    """Adam's first step moves each weight by the learning rate."""
    batch = make_batch(ENDS)
    for rate in (0.0, 1e-3, 2e-2):
        policy = TinyPolicy()
        before = weights_of(policy)
        learner = Learner(policy, config(optimizer=OptimizerConfig(eps=1e-12)))
        learner.update(batch, phase(rate))
        moved = (policy.actor.weight.detach() - before["actor.weight"]).abs()
        assert moved.max().item() == pytest.approx(rate, rel=1e-3, abs=1e-9)
    learner.update(batch, phase(0.0))
    assert learner.optimizer_state()["param_groups"][0]["lr"] == 0.0


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_each_optimiser_is_the_one_named_and_lowers_the_loss(name: str) -> None:
    policy = TinyPolicy()
    learner = Learner(policy, config(optimizer=OptimizerConfig(name=name, weight_decay=0.01)))
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop}[name]
    optimizer = make_optimizer(policy, OptimizerConfig(name=name, weight_decay=0.01))
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["weight_decay"] == 0.01
    batch = make_batch(ENDS)
    first, *_, last = [learner.update(batch, phase(1e-2, policy=0.0)).diagnostics["loss_baseline"] for _ in range(40)]
    assert last < 0.9 * first


def test_who_goes_on_has_the_configured_options_and_the_saved_state() -> None:
    policy = TinyPolicy()
    before = Learner(policy, config(optimizer=OptimizerConfig(weight_decay=0.5, betas=(0.5, 0.6))))
    before.update(make_batch(ENDS), phase(1e-3))
    after = Learner(policy, config(optimizer=OptimizerConfig(weight_decay=0.25)))
    after.restore(copy.deepcopy(before.optimizer_state()), before.version)
    saved, (group,) = before.optimizer_state()["state"], after.optimizer_state()["param_groups"]
    assert (group["weight_decay"], group["betas"], group["lr"]) == (0.25, (0.9, 0.999), 1e-3)
    for index, state in after.optimizer_state()["state"].items():
        assert all(torch.equal(value, saved[index][key]) for key, value in state.items())


def test_who_goes_on_at_a_phases_beginning_measures_it() -> None:
    policy = TinyPolicy()
    before, after = Learner(policy, config()), Learner(policy, config())
    before.update(make_batch(ENDS), phase(1e-3))
    after.restore(copy.deepcopy(before.optimizer_state()), before.version)
    begun = replace(phase(1e-3), phase="another")
    assert "boundary_kl" in after.update(make_batch(ENDS), begun).diagnostics
    assert "boundary_kl" not in after.update(make_batch(ENDS), begun).diagnostics


def poison_rewards(batch: Batch, policy: TinyPolicy) -> Batch:
    return replace(batch, reward=torch.full_like(batch.reward, math.nan))


def poison_behaviour(batch: Batch, policy: TinyPolicy) -> Batch:
    return replace(batch, behaviour_logits=torch.full_like(batch.behaviour_logits, math.nan))


def too_large_for_a_float(batch: Batch, policy: TinyPolicy) -> Batch:
    """The squared error overflows before its gradient does."""
    return replace(batch, reward=torch.full_like(batch.reward, 3e19))


@pytest.mark.parametrize("poison", [poison_rewards, poison_behaviour, too_large_for_a_float])
def test_a_loss_that_is_not_finite_changes_nothing(poison) -> None:
    policy = TinyPolicy()
    learner = Learner(policy, config(reward=RewardConfig(transform="none"), max_grad_norm=1e30))
    good = make_batch(ENDS)
    assert learner.update(good, phase(1e-3)).applied
    weights, optimizer = weights_of(policy), copy.deepcopy(learner.optimizer_state())
    report = learner.update(poison(good, policy), phase(1e-3))
    assert not report.applied
    assert learner.version == 1
    assert all(torch.equal(value, weights[name]) for name, value in policy.state_dict().items())
    after = learner.optimizer_state()
    assert after["param_groups"] == optimizer["param_groups"]
    for index, state in optimizer["state"].items():
        assert all(torch.equal(value, after["state"][index][key]) for key, value in state.items())
    assert learner.update(good, phase(1e-3)).applied  # and the next good batch is learnt from
    assert learner.version == 2


def test_updates_count_versions_and_the_lag_is_counted_in_them() -> None:
    learner, _, report = update(make_batch(ENDS), phase(1e-3))
    assert learner.version == 1
    assert report.diagnostics["policy_lag"] == 0  # collected with version 0, which this update was made to
    assert learner.update(make_batch(ENDS), phase(1e-3)).diagnostics["policy_lag"] == 1
    mixed = replace(make_batch(ENDS), policy_version=torch.arange(B).expand(T, B))
    assert learner.update(mixed, phase(1e-3)).diagnostics["policy_lag"] == pytest.approx(2 - 1)


def test_several_passes_are_as_many_updates_of_the_same_batch() -> None:
    batch = make_batch(ENDS)
    learner, policy, report = update(batch, phase(1e-2), passes=3)
    alone, other, first = update(batch, phase(1e-2))
    assert report.diagnostics == pytest.approx(first.diagnostics)  # of the first pass
    for _ in range(2):
        alone.update(batch, phase(1e-2))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in policy.state_dict().items())
    assert (learner.version, alone.version) == (1, 3)


class PlainPolicy(TinyPolicy):
    """Without a memory: a loop over steps is slow to compile."""

    def forward(self, observation: Observation, state: Tensor, *, routing, temperature, first, **asked) -> PolicyOutput:
        features = observation.blstats[:, :3].float() / 10
        scores = torch.tanh(self.router(features))
        alpha = torch.softmax(scores / temperature, dim=-1)
        logits, experts = self.actor(features), self.experts(features).unflatten(-1, (E, A))
        entropy = -(alpha * alpha.log()).sum(-1)
        return PolicyOutput(logits, self.critic(features)[:, 0], alpha, scores, entropy, experts, state, None)


def test_a_compiled_policy_learns_as_it_does_uncompiled(monkeypatch) -> None:
    """Forward and backward are traced and put together anew; machine code, which takes a minute, is left out."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    batch, weights = make_batch(ENDS), {"load_balance": 0.1, "expert_diversity": 0.1}
    found = []
    for compiled in (False, True):
        policy = PlainPolicy()
        learner = Learner(policy, config(compile=compiled))
        reports = [learner.update(batch, phase(1e-2, **weights)).diagnostics for _ in range(2)]
        found.append((reports, policy.state_dict()))
    (plain, before), (fast, after) = found
    for ours, expected in zip(fast, plain, strict=True):
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-4, atol=1e-5)


def test_restoring_goes_on_exactly() -> None:
    batch = make_batch(ENDS)
    learner, policy, _ = update(batch, phase(1e-2))
    other = TinyPolicy()
    other.load_state_dict(copy.deepcopy(policy.state_dict()))
    twin = Learner(other, config())
    twin.restore(copy.deepcopy(learner.optimizer_state()), learner.version)
    for one in (learner, twin):
        one.update(batch, phase(1e-2))
    assert twin.version == learner.version == 2
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in policy.state_dict().items())
