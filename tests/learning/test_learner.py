"""One update, against targets and gradients computed episode by episode from the definition of V-trace."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from polybeast_moe import _C
from polybeast_moe.config import LearnerConfig, OptimizerConfig, RewardConfig
from polybeast_moe.config.metrics import METRICS
from polybeast_moe.errors import UserError
from polybeast_moe.learning.learner import Learner, UpdateReport, make_optimizer
from polybeast_moe.learning.phases import LossSettings, Settings
from polybeast_moe.learning.reward_scale import RewardScale
from polybeast_moe.models.interface import Observation, PolicyOutput
from polybeast_moe.runtime.rollouts import Batch

pytestmark = pytest.mark.usefixtures("one_thread")

T, B, A, E = 12, 3, 5, 4
GAMMA = 0.9
CLIPS = {"clip_rho": 1.1, "clip_c": 0.9, "clip_pg_rho": 1.3}


class TinyPolicy(nn.Module):
    """Linear in the first two blstats and a recurrent sum of the first that halves every step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.actor = nn.Linear(3, A)
        self.critic = nn.Linear(3, 1)
        self.router = nn.Linear(3, E)
        self.experts = nn.Linear(3, E * A)
        self.has_prior = False
        self.mixes = False
        self.calls: list[dict[str, object]] = []

    def forward(self, observation: Observation, state: Tensor, *, routing, temperature, first, **asked) -> PolicyOutput:
        seen_now = {"grad": torch.is_grad_enabled(), "every_expert": asked.get("every_expert", False)}
        self.calls.append({"routing": routing, "temperature": temperature, **seen_now})
        seen = observation.blstats[:, :2].float().unflatten(0, tuple(first.shape)) / 10
        states = []
        for row, starts in zip(seen, first, strict=True):
            state = 0.5 * state * (~starts).float()[:, None] + row[:, :1]
            states.append(state)
        memory = torch.stack(states)
        features = torch.cat([seen, memory], dim=-1).flatten(0, 1)
        scores = torch.tanh(self.router(features))
        alpha = torch.softmax(scores / temperature, dim=-1)
        logits = self.actor(features)
        if self.mixes:
            logits = (alpha[:, :, None] * self.experts(features).unflatten(-1, (E, A))).sum(1)
        return PolicyOutput(
            logits=logits,
            value=self.critic(features).squeeze(1),
            alpha=alpha,
            router_scores=scores,
            alpha_entropy=-(alpha * alpha.log()).sum(-1),
            expert_logits=self.experts(features).unflatten(-1, (E, A)),
            state=memory[-1],
            states=memory,
            graph_prior=torch.sin(features @ torch.ones(3, E)) if self.has_prior else None,
        )


def observation(rng: np.random.Generator, rows: int) -> Observation:
    return Observation(
        glyph_crop=torch.zeros(rows, 3, 3, dtype=torch.int16),
        blstats=torch.from_numpy(rng.integers(-20, 20, (rows, 27))),
        conditions=torch.zeros(rows, 1, dtype=torch.int64),
        previous_action=torch.zeros(rows, dtype=torch.int64),
    )


def make_batch(ends: dict[tuple[int, int], str], steps: int = T, games: int = B) -> Batch:
    """`ends[t, b]` is "death" or "limit"."""
    rng = np.random.default_rng(7)
    terminated, truncated = torch.zeros(2, steps, games, dtype=torch.bool)
    first = torch.zeros(steps + 1, games, dtype=torch.bool)
    limits = [place for place, how in ends.items() if how == "limit"]
    for (t, b), how in ends.items():
        (terminated if how == "death" else truncated)[t, b] = True
        first[t + 1, b] = True
    first[0, 0] = True  # game 0 begins here, the others go on
    return Batch(
        observation=observation(rng, (steps + 1) * games),
        first=first,
        action=torch.from_numpy(rng.integers(0, A, (steps, games))),
        behaviour_logits=torch.from_numpy(rng.normal(0, 1, (steps, games, A))).float(),
        policy_version=torch.zeros(steps, games, dtype=torch.int64),
        reward=torch.from_numpy(rng.normal(0, 8, (steps, games))).float(),
        terminated=terminated,
        truncated=truncated,
        initial_state=torch.from_numpy(rng.normal(0, 1, (games, 1))).float(),
        final_observation=observation(rng, len(limits)),
        final_step=torch.tensor([t for t, _ in limits], dtype=torch.int64),
        final_game=torch.tensor([b for _, b in limits], dtype=torch.int64),
    )


# Game 0 dies, then is cut; game 1 is cut twice, once at the last step; game 2 dies at the last step.
ENDS = {(3, 0): "death", (8, 0): "limit", (1, 1): "limit", (T - 1, 1): "limit", (6, 2): "limit", (T - 1, 2): "death"}


def config(**changes: object) -> LearnerConfig:
    keys = {"discount": GAMMA, "normalise_advantages": False, **CLIPS}
    return LearnerConfig(**{**keys, **changes})


def phase(learning_rate: float = 0.0, routing: str = "softmax", temperature: float = 1.0, **weights: float) -> Settings:
    every = {"policy": 1.0, "baseline": 0.5, "entropy": 0.01, "alpha_entropy": 0.0, "load_balance": 0.0}
    return Settings("only", 0, routing, temperature, learning_rate, LossSettings(**{**every, **weights}))


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


def update(batch: Batch, settings: Settings, **changes: object) -> tuple[Learner, TinyPolicy, UpdateReport]:
    policy = TinyPolicy()
    learner = Learner(policy, config(**changes))
    return learner, policy, learner.update(batch, settings)


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


# The optimiser's step.


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


def poison_rewards(batch: Batch, policy: TinyPolicy) -> Batch:
    return replace(batch, reward=torch.full_like(batch.reward, math.nan))


def poison_behaviour(batch: Batch, policy: TinyPolicy) -> Batch:
    return replace(batch, behaviour_logits=torch.full_like(batch.behaviour_logits, math.nan))


def test_the_configuration_knows_every_figure_of_an_update() -> None:
    figures = set(Learner(TinyPolicy(), config()).update(make_batch(ENDS), phase(1e-3)).diagnostics)
    sometimes = {"matching_temperature", "graph_spread", "mean_episode_score", "mean_episode_return"}
    assert set(METRICS) - sometimes == figures


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


# The router's losses.


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
    with pytest.raises(UserError, match=r"losses.graph_alignment .* gives no graph_prior"):
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
        ({"extra_loss": ".nowhere.small_logits"}, "learner.extra_loss: '.nowhere.small_logits' is not an import path"),
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


def test_alpha_is_measured_on_the_rows_that_are_learnt_from() -> None:
    batch = make_batch(ENDS)
    _, policy, report = update(batch, phase())
    with torch.no_grad():
        output = policy(batch.observation, batch.initial_state, routing="", temperature=1.0, first=batch.first)
    assert report.mean_alpha == pytest.approx(output.alpha[: T * B].mean(0).tolist(), rel=1e-5)
    assert sum(report.mean_alpha) == pytest.approx(1)
    assert report.diagnostics["alpha_entropy"] == pytest.approx(output.alpha_entropy[: T * B].mean().item(), rel=1e-5)
