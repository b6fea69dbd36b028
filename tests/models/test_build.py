"""Which policy is built: the project's, or one of the user's own, named by its import path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from small import random_graph
from torch import Tensor, nn

from polybeast_moe.config import RunConfig
from polybeast_moe.errors import UserError
from polybeast_moe.graph import KnowledgeGraph
from polybeast_moe.models import Observation, Policy, PolicyOutput, build_policy, describe

MakeConfig = Callable[..., RunConfig]


class Constant(Policy):
    """A policy of a user's own."""

    def __init__(self, config: RunConfig, graph: KnowledgeGraph | None, *, num_actions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(num_actions))

    def initial_state(self, batch: int) -> Tensor:
        return torch.zeros(batch, 0)

    def forward(self, observation: Observation, state: Tensor | None = None, **settings: object) -> PolicyOutput:
        rows = len(observation.blstats)
        logits, zeros = self.table.expand(rows, -1), torch.zeros(rows)
        alpha = torch.ones(rows, 1)
        return PolicyOutput(logits, zeros, alpha, torch.zeros(rows, 1), zeros, logits[:, None], state, None)


def test_a_policy_of_ones_own_is_named_by_import_path(make_config: MakeConfig) -> None:
    config = make_config(policy={"class": f"{__name__}.Constant"})
    policy = build_policy(config, None, num_actions=5)
    assert isinstance(policy, Constant)
    assert "total" in describe(policy)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("GraphMoEPolicy", "package.module.NAME"),
        ("no_such_package.Policy", "no_such_package"),
        ("polybeast_moe.models.policy.GraphMoEPolici", "did you mean 'GraphMoEPolicy'"),
        ("polybeast_moe.models.policy.expert_mixture", "no subclass of polybeast_moe.models.Policy"),
    ],
)
def test_an_unknown_class_is_the_users_error(make_config: MakeConfig, path: str, hint: str) -> None:
    with pytest.raises(UserError, match=r"policy\.class") as error:
        build_policy(make_config(policy={"class": path}), random_graph(), num_actions=5)
    assert hint in str(error.value)
    assert "\n" not in str(error.value)
