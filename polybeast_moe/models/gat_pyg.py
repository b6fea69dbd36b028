"""Graph attention by PyTorch Geometric: the reference beside `gat`, with the same parameters and interface."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv

from polybeast_moe.models.conditions import PackedConditions
from polybeast_moe.models.gat import NEGATIVE_SLOPE, GraphAttentionStack, NodeCounts, OperatorStates
from polybeast_moe.models.message_edges import MessageEdges


class PygGraphAttention(GraphAttentionStack):
    """One disjoint copy of the graph a pattern, without the edges whose senders are silent there."""

    condition_edges: Tensor
    other_edges: Tensor

    def __init__(
        self, nodes: NodeCounts, packed: PackedConditions, edges: MessageEdges, hidden: int, heads: int
    ) -> None:
        super().__init__(nodes, packed, hidden, heads)
        loops = torch.arange(sum(nodes))[:, None].expand(-1, 2)
        effects_first = edges.effect + torch.tensor([nodes.conditions, self.num_fixed])
        others = torch.cat([edges.operator + self.num_fixed, effects_first, loops])
        conditions_first = edges.condition + torch.tensor([0, self.num_fixed])
        self.register_buffer("condition_edges", conditions_first.t().contiguous(), persistent=False)
        self.register_buffer("other_edges", others.t().contiguous(), persistent=False)

    def layer(self, hidden: int, heads: int) -> nn.Module:
        """Makes one attention layer; self-loops are among the edges already."""
        layer: nn.Module = GATConv(hidden, hidden // heads, heads, negative_slope=NEGATIVE_SLOPE, add_self_loops=False)
        return layer

    def operator_states(self, words: Tensor) -> OperatorStates:
        """Packed conditions [U, W] -> operator states."""
        lit = self.conditions.unpack(words)
        patterns, nodes = len(lit), len(self.identity)
        edges = self._edges(lit)
        states = self.inputs().repeat(patterns, 1)
        states = self.first_norm(states + F.relu(self.first(states, edges)))
        states = self.second_norm(states + F.relu(self.second(states, edges)))
        operator_states = states.view(patterns, nodes, -1)[:, self.num_fixed :].flatten(0, 1)
        operator = torch.arange(self.num_operators, device=lit.device).repeat(patterns)
        row = torch.arange(len(operator_states), device=lit.device).view(patterns, -1)
        return OperatorStates(operator_states, operator, row)

    def _edges(self, lit: Tensor) -> Tensor:
        """The edges of all copies, [2, number of edges]."""
        nodes = len(self.identity)
        first = torch.arange(0, len(lit) * nodes, nodes, device=lit.device)[:, None]
        others = self.other_edges[:, None] + first  # [2, U, Eo]
        sending = lit[:, self.condition_edges[0]].bool()  # [U, Ec]
        conditions = (self.condition_edges[:, None] + first)[:, sending]
        return torch.cat([others.flatten(1), conditions], dim=1)
