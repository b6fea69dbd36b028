"""Which edges of a knowledge graph carry messages.

Lit conditions and operators send; operators receive. A condition is what an observation shows: nothing changes it. An
effect sends nothing, and as the readout is over operators nobody would read what it receives. So of all edges those
from a condition or an operator to an operator remain, repeats kept, and each operator gets one self-loop.
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


def message_edges(graph: KnowledgeGraph) -> MessageEdges:
    """The edges of `graph` along which messages flow."""
    conditions, operators = len(graph.conditions), len(graph.operators)
    source, target = graph.edges.source, graph.edges.target
    to_operator = (target >= conditions) & (target < conditions + operators)
    from_condition = to_operator & (source < conditions)
    from_operator = to_operator & (source >= conditions) & (source < conditions + operators) & (source != target)
    return MessageEdges(
        condition=torch.from_numpy(np.stack([source[from_condition], target[from_condition] - conditions], axis=1)),
        operator=torch.from_numpy(np.stack([source[from_operator], target[from_operator]], axis=1) - conditions),
    )
