"""A policy of no cost whose recurrent state counts the steps of each game's episode; policy workers import it too."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from polybeast_moe.config import RunConfig
from polybeast_moe.graph import KnowledgeGraph
from polybeast_moe.models import Policy
from polybeast_moe.models.interface import Observation, PolicyOutput


class CountingPolicy(Policy):
    """Before the step t of an episode a game's state is t."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_actions))
        self.experts = len(config.policy.experts)

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 1)

    def forward(self, observation: Observation, state=None, *, first=None, **_unused) -> PolicyOutput:
        rows = len(observation.blstats)
        alpha = torch.full((rows, self.experts), 1 / self.experts)
        return PolicyOutput(
            logits=self.logits.expand(rows, -1),
            value=torch.zeros(rows),
            alpha=alpha,
            router_scores=alpha,
            alpha_entropy=torch.zeros(rows),
            expert_logits=self.logits.expand(rows, self.experts, -1),
            state=torch.where(first[0][:, None], 0.0, state) + 1,
            states=None,
        )


class PolicyThatIsNeverMade(CountingPolicy):
    """Whoever starts with it goes on starting."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:
        super().__init__(config, graph, num_actions=num_actions)
        while True:
            time.sleep(1.0)


class BrokenPolicy(CountingPolicy):
    """Fails where it is used, not where it is made."""

    def forward(self, *_args, **_options) -> PolicyOutput:
        raise ArithmeticError("this policy\nis broken")
