"""Which edges of a knowledge graph carry messages, and which way.

Operators receive: from the lit conditions and operators whose edges lead to them, and from the effects that they lead
to, each operator from itself too. So `leads_to` is read against its direction: an operator is judged by what it would
bring about. A condition is what an observation shows, and an effect stands for an outcome that nothing has brought
about yet: both hear only themselves. docs/decisions/0004 gives the reasons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from polybeast_moe.graph import KnowledgeGraph


class MessageEdges(NamedTuple):
    """Edges by kind of sender, repeats kept, self-loops left out. int64; nodes are numbered within their own kind."""

    condition: Tensor
    """[Ec, 2]: (condition, operator)."""
    operator: Tensor
    """[Eo, 2]: (operator, operator)."""
    effect: Tensor
    """[Ef, 2]: (effect, operator), for each edge operator -> effect."""


def message_edges(graph: KnowledgeGraph) -> MessageEdges:
    """The edges of `graph` along which messages flow."""
    conditions, operators = len(graph.conditions), len(graph.operators)
    effects = conditions + operators  # the number of the first
    source, target = graph.edges.source, graph.edges.target
    to_operator = (target >= conditions) & (target < effects)
    from_condition = to_operator & (source < conditions)
    from_operator = to_operator & (source >= conditions) & (source < effects) & (source != target)
    to_effect = (target >= effects) & (source >= conditions) & (source < effects)

    def pairs(sender: np.ndarray, receiver: np.ndarray) -> Tensor:
        return torch.from_numpy(np.stack([sender, receiver], axis=1))

    return MessageEdges(
        condition=pairs(source[from_condition], target[from_condition] - conditions),
        operator=pairs(source[from_operator] - conditions, target[from_operator] - conditions),
        effect=pairs(target[to_effect] - effects, source[to_effect] - conditions),
    )
