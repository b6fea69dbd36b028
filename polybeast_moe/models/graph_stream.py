"""The graph stream: lit conditions -> intent vector and a prior over the experts.

Rows repeat: within a batch of play about half of the patterns of lit conditions are distinct. Attention runs once per
distinct pattern and its results are indexed back, which leaves values and gradients as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.config import GraphConfig
from polybeast_moe.models.conditions import PackedConditions
from polybeast_moe.models.distinct import distinct_rows
from polybeast_moe.models.gat import (
    DistinctGraphAttention,
    GraphAttentionStack,
    NodeCounts,
    OperatorStates,
    sum_by_pattern,
)
from polybeast_moe.models.graph_plan import GraphPlan
from polybeast_moe.models.initialise import LAST_GAIN, orthogonal
from polybeast_moe.models.memory import Memory
from polybeast_moe.models.message_edges import message_edges

if TYPE_CHECKING:
    from polybeast_moe.graph import KnowledgeGraph

_SCORE_CAP = 20.0  # scores are capped softly, so that their exponentials can be summed as they are


class GraphReadout(NamedTuple):
    """What the graph stream says about each row."""

    intent: Tensor
    """[N, hidden]: the operators' states, read out by multi-head attention."""
    prior: Tensor
    """[N, E]: per expert the log-mean-exp of its operators' scores; 0 for an expert without operators."""
    moments: Tensor | None = None
    """[hidden + 1]: means over rows and operators of the states and of their squared length; None without gradients."""


class GraphStream(nn.Module):
    """Two layers of graph attention over the knowledge graph and a readout over its operators."""

    share: Tensor
    absent: Tensor

    def __init__(self, config: GraphConfig, graph: KnowledgeGraph, experts: Sequence[str]) -> None:
        super().__init__()
        self.hidden, self.heads = config.hidden, config.heads
        self.deduplicate = config.deduplicate
        self.attention = _attention(config, graph)
        self.conditions = self.attention.conditions
        own = torch.tensor([[operator.expert == expert for expert in experts] for operator in graph.operators])
        share = own / own.sum(0).clamp(min=1)
        self.register_buffer("share", share, persistent=False)  # [O, E]: 1 / the expert's operators on its own, else 0
        self.register_buffer("absent", (~own.any(0)).float(), persistent=False)  # [E]: 1 for an expert without any
        # One matrix reads the operators: a score a head for the readout, and the score for the experts' prior.
        self.read = orthogonal(nn.Linear(config.hidden, config.heads + 1), LAST_GAIN)
        self.memory = Memory()

    def forward(
        self, conditions: Tensor, weights_version: int | None = None, plan: GraphPlan | None = None
    ) -> GraphReadout:
        """Packed lit conditions [N, W] int64 -> GraphReadout.

        On the CPU, with `weights_version` and without gradients, results are kept per pattern and used again as long as
        the version stays the same: whoever passes it changes it with every change of the weights. With a `plan` of
        these rows conditions are not looked at.
        """
        words = self.conditions.relevant(conditions)
        remembers = plan is None and not torch.is_grad_enabled() and words.device.type == "cpu"
        if remembers and weights_version is not None:
            return self._split(self.memory.recall(words, weights_version, self._remembered))
        operators, number = self._operators(words, plan)
        both = self._combine(operators)
        if number is not None:
            both = both.index_select(0, number)
        return self._split(both)._replace(moments=moments(operators, number))

    def plan(self, conditions: Tensor) -> GraphPlan | None:
        """The plan of packed conditions [N, W] on the host; None where attention takes none."""
        if not self.deduplicate or not isinstance(self.attention, DistinctGraphAttention):
            return None
        words = self.conditions.relevant(conditions)
        first, number = distinct_rows(words)
        return GraphPlan(number, *self.attention.plan(words[first]))

    def _operators(self, words: Tensor, plan: GraphPlan | None) -> tuple[OperatorStates, Tensor | None]:
        """The operators' states in each pattern, and the pattern of each row; None: every row has its own."""
        distinct = self.attention if isinstance(self.attention, DistinctGraphAttention) else None
        if plan is not None and distinct is not None:
            return distinct.run(plan.row, plan.states), plan.number
        if not self.deduplicate:
            return distinct.run(*distinct.plan_densely(words)) if distinct is not None else self.attention(words), None
        first, number = (part.to(words.device) for part in distinct_rows(words.cpu()))
        return self.attention(words[first]), number

    @torch.no_grad()
    def operator_attention(self, conditions: Tensor) -> Tensor:
        """Packed lit conditions [N, W] int64 -> [N, H, O]: the readout's attention, each head's sums to 1."""
        operators, number = self._operators(self.conditions.relevant(conditions), None)
        scores = _SCORE_CAP * torch.tanh(self.read(operators.states)[:, : self.heads] / _SCORE_CAP)
        weights = scores.exp()[operators.row].transpose(1, 2)  # [U, H, O]
        weights = weights / weights.sum(-1, keepdim=True)
        return weights if number is None else weights.index_select(0, number)

    def _combine(self, operators: OperatorStates) -> Tensor:
        """Operators' states in U patterns -> intent and prior side by side [U, hidden + E]."""
        return self._read_out(sum_by_pattern(self._terms(operators.states, operators.operator), operators.row))

    def _remembered(self, words: Tensor) -> Tensor:
        """Packed patterns [U, W] -> intent and prior side by side [U, hidden + E], of terms that the memory holds."""
        if not isinstance(self.attention, DistinctGraphAttention):
            return self._combine(self.attention(words))
        terms, row = self.memory.terms(self.attention, words, self._terms)
        return self._read_out(F.embedding_bag(row, terms, mode="sum"))

    def _terms(self, states: Tensor, operator: Tensor) -> Tensor:
        """What operator states [S, hidden] add to the readout: [S, hidden + H + E].

        Numerators and denominators of the readout's attention, and the experts' means.
        """
        scores = _SCORE_CAP * torch.tanh(self.read(states) / _SCORE_CAP)  # [S, H + 1]
        weights = scores.exp()
        by_head = states.view(len(states), self.heads, -1) * weights[:, : self.heads, None]
        shares = weights[:, self.heads :] * self.share[operator]  # [S, E]
        return torch.cat([by_head.flatten(1), weights[:, : self.heads], shares], dim=1)

    def _read_out(self, sums: Tensor) -> Tensor:
        """Terms summed over operators [U, hidden + H + E] -> intent and prior [U, hidden + E]."""
        numerator, denominator, means = sums.tensor_split([self.hidden, self.hidden + self.heads], dim=1)
        intent = numerator.view(len(sums), self.heads, -1) / denominator[..., None]
        return torch.cat([intent.flatten(1), (means + self.absent).log()], dim=1)

    def _split(self, both: Tensor) -> GraphReadout:
        return GraphReadout(*both.tensor_split([self.hidden], dim=1))


def moments(operators: OperatorStates, number: Tensor | None = None) -> Tensor | None:
    """Means of the operators' states and of their squared length [hidden + 1], each state as often as rows show it.

    `number` [N] is the pattern of each row; None: every row has its own. So they do not depend on how states are
    shared, and those of two batches are their mean. None without gradients: only a loss reads them.
    """
    if not torch.is_grad_enabled():
        return None
    states, _, row = operators
    shown = states.new_ones(len(row))
    if number is not None:  # bincount would wait for a device
        shown = torch.zeros_like(shown).index_add_(0, number, states.new_ones(len(number)))
    share = states.new_zeros(len(states)).index_add_(0, row.flatten(), shown.repeat_interleave(row.shape[1]))
    share = share / share.sum().clamp(min=1)
    return share @ torch.cat([states, states.square().sum(-1, keepdim=True)], dim=1)


def _attention(config: GraphConfig, graph: KnowledgeGraph) -> GraphAttentionStack:
    nodes = NodeCounts(len(graph.conditions), len(graph.effects), len(graph.operators))
    sizes = (nodes, PackedConditions(graph.condition_bits), message_edges(graph), config.hidden, config.heads)
    if config.implementation == "pyg":
        from polybeast_moe.models.gat_pyg import PygGraphAttention

        return PygGraphAttention(*sizes)
    return DistinctGraphAttention(*sizes)
