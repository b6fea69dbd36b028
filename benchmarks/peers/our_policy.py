"""The shared network as a policy of this project: `policy.class: peers.our_policy.SharedPolicy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peers.network import SharedNetwork
from polybeast_moe.config import RunConfig
from polybeast_moe.models import Observation, Policy, PolicyOutput

if TYPE_CHECKING:
    from polybeast_moe.graph import KnowledgeGraph


class SharedPolicy(Policy):
    """One expert that has all the weight, without graph, router or recurrence; for `policy.single_expert`."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:  # noqa: ARG002
        super().__init__()
        self.expert_names = config.policy.expert_names
        self.network = SharedNetwork(num_actions)

    def initial_state(self, batch: int) -> Tensor:
        """Nothing is remembered."""
        return torch.zeros(batch, 0)

    def forward(self, observation: Observation, state: Tensor | None = None, **_: Any) -> PolicyOutput:
        """N rows."""
        logits, value = self.network(observation.glyph_crop, observation.blstats)
        ones = torch.ones_like(value)[:, None]
        return PolicyOutput(
            logits=logits,
            value=value,
            alpha=ones,
            router_scores=ones * 0,
            alpha_entropy=value.detach() * 0,
            expert_logits=logits[:, None],
            state=state,
            states=None,
        )
