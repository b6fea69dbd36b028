"""Which actions the knowledge graph rules out in a state, a function of the lit conditions alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from polybeast_moe import _C
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.errors import UserError
from polybeast_moe.graph.actions import action_indices

if TYPE_CHECKING:
    from polybeast_moe.graph import KnowledgeGraph

MASKED = -1e4
"""The logit of an action that is ruled out: its probability is 0 in float32, and every logarithm stays finite."""

_PROMPTS = ("prompt_choice", "prompt_text_or_more")  # where keys mean something else


class ActionMask(nn.Module):
    """Masks the logits of actions of which no operator is possible.

    An operator is possible where all that it `requires` is lit and nothing of what it `excludes`. An action that no
    operator is bound to, or one without either key, is never masked; at a prompt nothing is.
    """

    required: Tensor
    excluded: Tensor
    opens: Tensor
    free: Tensor
    prompts: Tensor

    def __init__(self, graph: KnowledgeGraph, num_actions: int) -> None:
        """Raises UserError where a state could leave no action, and ValueError where actions are not NLE's task's."""
        super().__init__()
        if num_actions != len(ACTIONS):
            raise ValueError(f"the mask knows the {len(ACTIONS)} actions of the task, not {num_actions}")
        gated = [operator for operator in graph.operators if operator.requires or operator.excludes]
        free = torch.ones(num_actions, dtype=torch.bool)
        opens = torch.zeros(len(gated), num_actions, dtype=torch.bool)
        for row, operator in enumerate(gated):
            opens[row, list(action_indices(operator.actions, ACTIONS))] = True
        free[opens.any(0)] = False
        for operator in graph.operators:
            if operator not in gated:
                free[list(action_indices(operator.actions, ACTIONS))] = True
        if not free.any():
            raise UserError("policy.action_mask: every action has requirements in the graph; leave one without")
        self.register_buffer("required", _words([operator.requires for operator in gated]), persistent=False)  # [R, W]
        self.register_buffer("excluded", _words([operator.excludes for operator in gated]), persistent=False)  # [R, W]
        self.register_buffer("opens", opens.float(), persistent=False)  # [R, A]
        self.register_buffer("free", free, persistent=False)  # [A]
        self.register_buffer("prompts", _words([_PROMPTS])[0], persistent=False)  # [W]

    def allowed(self, conditions: Tensor) -> Tensor:
        """Packed lit conditions [N, W] int64 -> [N, A] bool; at least one action of a row is True."""
        words = conditions[:, None]
        possible = ((words & self.required) == self.required).all(2) & ((words & self.excluded) == 0).all(2)  # [N, R]
        prompt = (conditions & self.prompts).any(1, keepdim=True)
        return (possible.float() @ self.opens > 0) | self.free | prompt

    def forward(self, logits: Tensor, conditions: Tensor) -> Tensor:
        """[N, A] logits with `MASKED` in place of those ruled out."""
        return logits.masked_fill(~self.allowed(conditions), MASKED)


def masked_alike(logits: Tensor, other: Tensor) -> Tensor:
    """`logits` with those actions masked that are masked in `other`; both [N, A]."""
    return logits.masked_fill(other <= MASKED / 2, MASKED)


def _words(conditions: list[tuple[str, ...]]) -> Tensor:
    """[R, W] int64: the bits of R lists of conditions, packed as the engine packs them."""
    names = _C.condition_names()
    words = torch.zeros(len(conditions), _C.condition_words(), dtype=torch.int64)
    for row, named in enumerate(conditions):
        for name in named:
            bit = names.index(name)
            words[row, bit // 64] |= torch.tensor(1) << (bit % 64)
    return words
