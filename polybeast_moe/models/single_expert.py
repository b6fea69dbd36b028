"""One expert of a mixture's size: what the mixture is compared with."""

from __future__ import annotations

from typing import NamedTuple

from polybeast_moe.config import PolicyConfig


class Sizes(NamedTuple):
    """What the configuration of the policy alone does not tell."""

    expert: int
    """Features that an expert reads."""
    router: int
    """Features that the router reads."""
    actions: int
    """Logits that an expert gives."""


def single_expert_hidden(config: PolicyConfig, sizes: Sizes) -> int:
    """Hidden units of the one expert that replaces experts and router, by `policy.single_expert`.

    `equal_parameters`: as many parameters as all experts and the router. `equal_operations`: as many multiply-adds a
    row as the router and `policy.single_expert_support` experts, the others having zero weight.
    """
    experts, hidden = len(config.experts), config.expert_hidden
    if config.single_expert == "equal_parameters":
        router = (sizes.router + 1) * config.router.hidden + (config.router.hidden + 1) * experts
        each = (sizes.expert + 1) * hidden + (hidden + 1) * sizes.actions
        units = (router + experts * each - sizes.actions) / (sizes.expert + 1 + sizes.actions)
    else:
        router = (sizes.router + experts) * config.router.hidden
        each = (sizes.expert + sizes.actions) * hidden
        units = (router + config.single_expert_support * each) / (sizes.expert + sizes.actions)
    return max(1, round(units))
