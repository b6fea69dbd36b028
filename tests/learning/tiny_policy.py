"""A policy small enough to be computed by hand, batches for it, and one update of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from polybeast_moe.config import LearnerConfig
from polybeast_moe.learning.learner import Learner, UpdateReport
from polybeast_moe.learning.phases import LossSettings, Settings
from polybeast_moe.models.interface import Observation, PolicyOutput
from polybeast_moe.runtime.rollouts import Batch

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
            operator_prior=torch.sin(features @ torch.ones(3, E)) if self.has_prior else None,
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


def update(batch: Batch, settings: Settings, **changes: object) -> tuple[Learner, TinyPolicy, UpdateReport]:
    policy = TinyPolicy()
    learner = Learner(policy, config(**changes))
    return learner, policy, learner.update(batch, settings)
