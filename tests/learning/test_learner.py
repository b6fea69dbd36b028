"""One update's targets, losses and figures, computed episode by episode from the definition of V-trace."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_policy import CLIPS, ENDS, GAMMA, A, B, T, TinyPolicy, config, make_batch, phase, update
from torch import nn

from polybeast_moe import _C
from polybeast_moe.config import RewardConfig
from polybeast_moe.config.metrics import METRICS
from polybeast_moe.learning.learner import Learner
from polybeast_moe.runtime.rollouts import Batch


class Definition:
    """V-trace (Espeholt et al. 2018, equation 1) of each episode by itself, in double precision: sums of products."""

    def __init__(self, policy: TinyPolicy, batch: Batch) -> None:
        self.weights = {name: value.detach().double().numpy() for name, value in policy.named_parameters()}
        self.batch = batch
        steps, games = batch.reward.shape
        self.blstats = batch.observation.blstats.numpy().reshape(steps + 1, games, 27)
        self.values = np.zeros((steps + 1, games))
        self.ratios = np.zeros((steps, games))
        self.finals: dict[tuple[int, int], float] = {}
        places = list(zip(batch.final_step.tolist(), batch.final_game.tolist(), strict=True))
        for b in range(games):
            memory = float(batch.initial_state[b, 0])
            for t in range(steps + 1):
                memory, features = self.look(self.blstats[t, b], 0.0 if batch.first[t, b] else memory)
                self.values[t, b] = self.value(features)
                if t < steps:
                    self.ratios[t, b] = self.ratio(features, t, b)
                if (t, b) in places:
                    final = batch.final_observation.blstats.numpy()[places.index((t, b))]
                    self.finals[t, b] = self.value(self.look(final, memory)[1])
        self.vs, self.advantages = np.zeros((steps, games)), np.zeros((steps, games))
        for b in range(games):
            begin = 0
            for t in range(steps):
                if batch.terminated[t, b] or batch.truncated[t, b] or t == steps - 1:
                    self.segment(b, begin, t)
                    begin = t + 1

    def look(self, blstats: np.ndarray, memory: float) -> tuple[float, np.ndarray]:
        x, y = blstats[0] / 10, blstats[1] / 10
        memory = 0.5 * memory + x
        return memory, np.array([x, y, memory])

    def value(self, features: np.ndarray) -> float:
        return float(self.weights["critic.weight"][0] @ features + self.weights["critic.bias"][0])

    def ratio(self, features: np.ndarray, t: int, b: int) -> float:
        target = self.weights["actor.weight"] @ features + self.weights["actor.bias"]
        behaviour = self.batch.behaviour_logits[t, b].double().numpy()
        action = int(self.batch.action[t, b])
        chance = [np.exp(logits[action]) / np.exp(logits).sum() for logits in (target, behaviour)]
        return float(chance[0] / chance[1])

    def segment(self, b: int, begin: int, end: int) -> None:
        """An episode's steps begin..end in this batch; what follows the last is nothing, V(final) or V(row T)."""
        if self.batch.terminated[end, b]:
            after = 0.0
        elif self.batch.truncated[end, b]:
            after = self.finals[end, b]
        else:
            after = self.values[end + 1, b]
        steps = range(begin, end + 1)
        rewards = {t: math.tanh(float(self.batch.reward[t, b]) / 10) for t in steps}
        values = {**{t: self.values[t, b] for t in steps}, end + 1: after}
        vs = {end + 1: after}
        for s in steps:
            vs[s] = values[s]
            for t in range(s, end + 1):
                delta = min(CLIPS["clip_rho"], self.ratios[t, b]) * (rewards[t] + GAMMA * values[t + 1] - values[t])
                trace = math.prod(min(CLIPS["clip_c"], self.ratios[i, b]) for i in range(s, t))
                vs[s] += GAMMA ** (t - s) * trace * delta
        for t in steps:
            self.vs[t, b] = vs[t]
            rho = min(CLIPS["clip_pg_rho"], self.ratios[t, b])
            self.advantages[t, b] = rho * (rewards[t] + GAMMA * vs[t + 1] - values[t])


def test_losses_and_diagnostics_are_those_of_the_definition() -> None:
    batch = make_batch(ENDS)
    _, policy, report = update(batch, phase())
    truth = Definition(policy, batch)
    figures = report.diagnostics
    values = truth.values[:-1]
    assert figures["loss_baseline"] == pytest.approx(0.25 * np.mean((values - truth.vs) ** 2), rel=1e-4)
    with torch.no_grad():
        output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
    log_policy = torch.log_softmax(output.logits, -1).view(T + 1, B, A)[:-1].double()
    behaviour = torch.log_softmax(batch.behaviour_logits, -1).double()
    log_probs = log_policy.gather(-1, batch.action[..., None])[..., 0].numpy()
    assert figures["loss_policy"] == pytest.approx(-np.mean(truth.advantages * log_probs), rel=1e-4)
    entropy = -(log_policy.exp() * log_policy).sum(-1).mean().item()
    assert figures["policy_entropy"] == pytest.approx(entropy, rel=1e-5)
    assert figures["loss_entropy"] == pytest.approx(-0.01 * entropy, rel=1e-5)
    kl = (behaviour.exp() * (behaviour - log_policy)).sum(-1).mean().item()
    assert figures["behaviour_kl"] == pytest.approx(kl, rel=1e-5)
    assert figures["rho_clip_share"] == pytest.approx(np.mean(truth.ratios > CLIPS["clip_rho"]))
    assert 0 < figures["rho_clip_share"] < 1
    explained = 1 - np.var(truth.vs - values) / np.var(truth.vs)
    assert figures["explained_variance"] == pytest.approx(explained, rel=1e-4)
    parts = sum(v for k, v in figures.items() if k.startswith("loss_") and k != "loss_total")
    assert figures["loss_total"] == pytest.approx(parts, rel=1e-5)


def test_the_weighted_sum_of_reward_terms_is_formed_before_the_transform() -> None:
    batch = make_batch(ENDS)
    terms = torch.randn(T, B, len(_C.REWARD_TERMS), generator=torch.Generator().manual_seed(1))
    weights = {"task": 0.5, "new_squares": 4.0, "death": -9.0}
    squares, death = (terms[..., _C.REWARD_TERMS.index(name)] for name in ("new_squares", "death"))
    by_hand = replace(batch, reward=0.5 * batch.reward + 4 * squares - 9 * death)
    _, policy, wanted = update(by_hand, phase())
    shaped = replace(phase(), reward=weights)
    _, _, got = update(replace(batch, reward_terms=terms), shaped)
    assert got.diagnostics == pytest.approx(wanted.diagnostics, rel=1e-5)
    truth = Definition(policy, by_hand)  # which squashes what it is given
    assert got.diagnostics["loss_baseline"] == pytest.approx(
        0.25 * np.mean((truth.values[:-1] - truth.vs) ** 2), rel=1e-4
    )


def test_gradients_reach_the_critic_and_the_actor_through_the_values_and_log_probabilities_alone() -> None:
    """Targets and advantages are constants; the bootstrap row and final observations get no gradient of their own."""
    batch = make_batch(ENDS)
    _, policy, _ = update(batch, phase(entropy=0.0), max_grad_norm=1e9)
    got = {name: parameter.grad.clone() for name, parameter in policy.named_parameters() if parameter.grad is not None}
    truth = Definition(policy, batch)
    policy.zero_grad()
    output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
    loss = torch.zeros(())
    for t in range(T):
        for b in range(B):
            row = t * B + b
            log_prob = torch.log_softmax(output.logits[row], -1)[batch.action[t, b]]
            loss = loss - truth.advantages[t, b] * log_prob + 0.25 * (output.value[row] - truth.vs[t, b]) ** 2
    (loss / (T * B)).backward()
    for name in ("actor.weight", "critic.weight", "critic.bias"):
        assert torch.allclose(got[name], dict(policy.named_parameters())[name].grad, rtol=1e-3, atol=1e-6), name


@pytest.mark.parametrize("how", ["death", "limit"])
def test_nothing_of_the_next_episode_leaks_into_the_last(how: str) -> None:
    """A great reward after an end changes no target before it."""
    batch = make_batch({(5, b): how for b in range(B)})
    later = batch.reward.clone()
    later[6:] += 100
    grads = []
    for rewards in (batch.reward, later):
        policy = TinyPolicy()
        reports = Learner(policy, config(reward=RewardConfig(transform="none")))._targets
        output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
        values = output.value.view(T + 1, B).detach()
        same = torch.zeros(T, B)
        grads.append(reports(replace(batch, reward=rewards), phase(), output, values, same, same))
    assert torch.equal(grads[0].vs[:6], grads[1].vs[:6])
    assert torch.equal(grads[0].pg_advantages[:6], grads[1].pg_advantages[:6])
    assert not torch.equal(grads[0].vs[6:], grads[1].vs[6:])


def test_the_routing_and_temperature_of_the_phase_are_used_throughout() -> None:
    _, policy, _ = update(make_batch(ENDS), phase(routing="sparsemax", temperature=0.3))
    assert [(call["routing"], call["temperature"]) for call in policy.calls] == [("sparsemax", 0.3)] * 2
    assert [call["grad"] for call in policy.calls] == [True, False]  # V(final) is a target


def test_without_truncations_no_final_observation_is_evaluated() -> None:
    assert len(update(make_batch({(3, 0): "death"}), phase())[1].calls) == 1


def test_normalised_advantages_make_the_policy_loss_blind_to_the_scale_of_rewards() -> None:
    batch = make_batch({(t, b): "death" for t in range(T) for b in range(B)})  # advantages are rho (r - V)
    reports = []
    for scale in (1.0, 1000.0):
        policy = TinyPolicy()
        nn.init.zeros_(policy.critic.weight), nn.init.zeros_(policy.critic.bias)
        learner = Learner(policy, config(normalise_advantages=True, reward=RewardConfig(transform="none")))
        reports.append(learner.update(replace(batch, reward=batch.reward * scale), phase()).diagnostics["loss_policy"])
    assert reports[0] == pytest.approx(reports[1], rel=1e-4)


def test_a_batch_of_one_step_of_one_game_can_be_learnt_from() -> None:
    _, _, report = update(make_batch({}, steps=1, games=1), phase(1e-3), normalise_advantages=True)
    assert report.applied
    assert all(math.isfinite(value) for value in report.diagnostics.values()), report.diagnostics


def test_alpha_is_measured_on_the_rows_that_are_learnt_from() -> None:
    batch = make_batch(ENDS)
    _, policy, report = update(batch, phase())
    with torch.no_grad():
        output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
    assert report.mean_alpha == pytest.approx(output.alpha[: T * B].mean(0).tolist(), rel=1e-5)
    assert sum(report.mean_alpha) == pytest.approx(1)
    assert report.diagnostics["alpha_entropy"] == pytest.approx(output.alpha_entropy[: T * B].mean().item(), rel=1e-5)


def test_what_a_new_phase_makes_of_the_same_weights_is_measured_once() -> None:
    policy = TinyPolicy()
    policy.mixes = True
    learner, batch = Learner(policy, config()), make_batch(ENDS)
    warm, cold = phase(1e-2), replace(phase(1e-2, temperature=0.2), phase="next")
    assert "boundary_kl" not in learner.update(batch, warm).diagnostics
    with torch.no_grad():
        before, after = (
            torch.log_softmax(
                policy(
                    batch.observation, batch.initial_state, routing="", temperature=temperature, first=batch.first
                ).logits,
                -1,
            )[: T * B]
            for temperature in (1.0, 0.2)
        )
    measured = learner.update(batch, cold).diagnostics["boundary_kl"]
    assert measured == pytest.approx((before.exp() * (before - after)).sum(-1).mean().item(), rel=1e-4)
    assert measured > 1e-4
    assert "boundary_kl" not in learner.update(batch, cold).diagnostics


def test_a_policy_on_its_own_data_clips_no_ratio() -> None:
    """Rounding alone, which differs with the batch's size, is no ratio above one."""
    batch = make_batch(ENDS)
    policy = TinyPolicy()
    with torch.no_grad():
        output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
    own = output.logits.view(T + 1, B, A)[:-1]
    jitter = own * (1 + 1e-7 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0)))
    report = Learner(policy, config(clip_rho=1.0)).update(replace(batch, behaviour_logits=jitter), phase())
    assert report.diagnostics["rho_clip_share"] == 0
    assert report.diagnostics["behaviour_kl"] == pytest.approx(0, abs=1e-6)


def test_the_configuration_knows_every_figure_of_an_update() -> None:
    figures = set(Learner(TinyPolicy(), config()).update(make_batch(ENDS), phase(1e-3)).diagnostics)
    sometimes = {"matching_temperature", "graph_spread", "mean_episode_score", "mean_episode_return"}
    assert set(METRICS) - sometimes == figures
