"""Graph attention over the knowledge graph, once for each distinct neighbourhood.

Two layers of GAT (Velickovic et al. 2018), each followed by ReLU, the residual and a LayerNorm. With V_j = W h_j and,
per head, logits e_ij = LeakyReLU(a_src . V_j + a_dst . V_i), node i becomes the sum over its senders j of
softmax_j(e_ij) V_j.

The graph is static and an observation only decides which conditions send. So what an operator becomes in layer one is a
function of which of ITS conditions are lit, and in layer two of those and of its sending operators' conditions. A batch
shows few of these neighbourhoods (an operator with eight conditions has tens of them where the whole graph has a
thousand patterns), so attention runs once for each, and an index tells which state an operator has in which pattern.
Values and gradients are those of GAT over a copy of the graph a row. Conditions and effects receive only from
themselves: one state for all patterns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.models.conditions import PackedConditions
from polybeast_moe.models.distinct import distinct_rows
from polybeast_moe.models.graph_plan import OperatorPlan
from polybeast_moe.models.message_edges import MessageEdges
from polybeast_moe.models.weighted_sum import gather_rows, weighted_sum

NEGATIVE_SLOPE = 0.2
_DENSE_STATES = 64  # states an operator, up to which sum_by_pattern multiplies


class OperatorStates(NamedTuple):
    """The states of the operators in U patterns, each distinct one stored once."""

    states: Tensor
    """[S, hidden]."""
    operator: Tensor
    """[S] int64: whose state it is."""
    row: Tensor
    """[U, O] int64: which row of `states` an operator has in a pattern."""


def sum_by_pattern(terms: Tensor, row: Tensor) -> Tensor:
    """Sums the terms of states [S, F] over the operators of each pattern, whose states are `row` [U, O] -> [U, F].

    As long as there are few states a product with the dense 0/1 matrix of who has which is faster than gathering.
    """
    patterns, operators = row.shape
    if len(terms) > _DENSE_STATES * operators:
        return gather_rows(terms, row).sum(1)
    return terms.new_zeros(patterns, len(terms)).scatter_(1, row, 1.0) @ terms


class Projected(NamedTuple):
    """Nodes as a layer's attention sees them."""

    values: Tensor
    """[R, hidden]: V, all heads side by side."""
    send: Tensor
    """[R, H]: a_src . V."""
    receive: Tensor
    """[R, H]: a_dst . V."""


class GraphAttention(nn.Module):
    """One layer; its parameters are named as in PyG's GATConv, so that either implementation loads the other's."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.lin = nn.Linear(hidden, hidden, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, hidden // heads))
        self.att_dst = nn.Parameter(torch.empty(1, heads, hidden // heads))
        self.bias = nn.Parameter(torch.zeros(hidden))
        for parameter in (self.lin.weight, self.att_src, self.att_dst):
            nn.init.xavier_uniform_(parameter)

    def project(self, states: Tensor) -> Projected:
        """[R, hidden] -> what attention needs of them."""
        values: Tensor = self.lin(states)
        by_head = values.view(len(values), *self.att_src.shape[1:])
        return Projected(values, (by_head * self.att_src).sum(-1), (by_head * self.att_dst).sum(-1))

    def attend(self, projected: Projected, receivers: Tensor, senders: Tensor, log_edges: Tensor) -> Tensor:
        """Attention of S receivers over J senders each.

        Args:
            projected: of R nodes.
            receivers: [S] int64, rows of `projected`.
            senders: [S, J] int64, rows of `projected`.
            log_edges: [S, J], log of the number of parallel edges; -inf where a sender is silent.

        Returns:
            [S, hidden].
        """
        receive = gather_rows(projected.receive, receivers)[:, None]
        logits = F.leaky_relu(gather_rows(projected.send, senders) + receive, NEGATIVE_SLOPE)
        weights = (logits + log_edges[..., None]).softmax(dim=1)
        return weighted_sum(projected.values, senders, weights) + self.bias


class Prepared(NamedTuple):
    """What is the same for all patterns."""

    nodes: Tensor
    """[P + F + O, hidden]: input states."""
    first: Projected
    """Of all nodes, for layer one."""
    second: Projected
    """Of the conditions and effects, for layer two."""


class NodeCounts(NamedTuple):
    """How many nodes of each type there are, in the order in which attention numbers them."""

    conditions: int
    effects: int
    operators: int


class GraphAttentionStack(nn.Module, ABC):
    """Node embeddings and two attention layers: what both implementations share. Subclasses run them.

    Nodes are the conditions, the effects, then the operators; the input of a node is its identity plus its type.
    """

    type_of_node: Tensor

    def __init__(self, nodes: NodeCounts, conditions: PackedConditions, hidden: int, heads: int) -> None:
        super().__init__()
        self.conditions = conditions
        self.num_conditions, self.num_operators = nodes.conditions, nodes.operators
        self.num_fixed = nodes.conditions + nodes.effects  # nodes that hear only themselves
        self.identity = nn.Parameter(torch.randn(sum(nodes), hidden))
        self.node_type = nn.Parameter(torch.randn(3, hidden) * 0.5)
        type_of_node = torch.arange(3).repeat_interleave(torch.tensor(nodes))
        self.register_buffer("type_of_node", type_of_node, persistent=False)
        self.first, self.second = self.layer(hidden, heads), self.layer(hidden, heads)
        self.first_norm, self.second_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    @abstractmethod
    def layer(self, hidden: int, heads: int) -> nn.Module:
        """Makes one attention layer."""

    @abstractmethod
    def operator_states(self, words: Tensor) -> OperatorStates:
        """Packed conditions [U, W] -> operator states."""

    def forward(self, words: Tensor) -> OperatorStates:
        """Packed conditions [U, W] -> operator states, as `operator_states`."""
        return self.operator_states(words)

    def inputs(self) -> Tensor:
        """Input states of the nodes, [P + F + O, hidden]."""
        return self.identity + gather_rows(self.node_type, self.type_of_node)


class DistinctGraphAttention(GraphAttentionStack):
    """Exact GAT, run once for each distinct neighbourhood.

    Which those are is a matter of integers, and planned on the host wherever the module is: tensors whose names begin
    with an underscore stay there.
    """

    first: GraphAttention
    second: GraphAttention
    condition: Tensor
    effect: Tensor
    operator: Tensor
    log_edges: Tensor

    def __init__(
        self, nodes: NodeCounts, packed: PackedConditions, edges: MessageEdges, hidden: int, heads: int
    ) -> None:
        super().__init__(nodes, packed, hidden, heads)
        conditions, _, operators = nodes
        own = torch.arange(operators)[:, None].expand(-1, 2)
        condition, condition_log_edges = _senders(edges.condition, operators)
        operator, operator_log_edges = _senders(torch.cat([edges.operator, own]), operators)
        effect, effect_log_edges = _senders(edges.effect, operators)
        near = torch.zeros(conditions, operators, dtype=torch.bool)
        near[edges.condition[:, 0], edges.condition[:, 1]] = True
        far = near.clone()
        for sender, receiver in edges.operator.tolist():
            far[:, receiver] |= near[:, sender]
        self._near, self._far = packed.masks(near), packed.masks(far)  # [O, W]: the conditions that decide each layer
        self._senders = operator  # [O, Jo]: the operators that send to an operator, itself among them
        self._own = (operator == torch.arange(operators)[:, None]).long().argmax(1)  # [O]: its own place there
        buffers = {
            "condition": condition,  # [O, Jc]: the conditions that may send to an operator
            "effect": effect,  # [O, Jf]: the effects that it leads to
            "operator": operator,  # _senders again, on the device
            "log_edges": torch.cat([condition_log_edges, effect_log_edges, operator_log_edges], dim=1),  # [O, J]
        }
        self.relayed = bool(len(edges.operator))  # else layer two depends on what layer one does
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)

    def layer(self, hidden: int, heads: int) -> nn.Module:
        """Makes one attention layer."""
        return GraphAttention(hidden, heads)

    def operator_states(self, words: Tensor) -> OperatorStates:
        """Packed conditions [U, W] -> operator states."""
        row, plan = self.plan(words.cpu())
        return self.run(row.to(words.device), OperatorPlan(*(part.to(words.device) for part in plan)))

    def run(self, row: Tensor, plan: OperatorPlan) -> OperatorStates:
        """The states of a plan, which is where the module is; `row` [U, O] goes with them."""
        return OperatorStates(self.states_of(plan, self.prepare()), plan.operator, row)

    def plan(self, words: Tensor) -> tuple[Tensor, OperatorPlan]:
        """Packed conditions [U, W] on the host -> which state each operator has [U, O], each distinct one once."""
        found, row = distinct_rows(self.neighbourhoods(words))
        pattern, operator = found // self.num_operators, found % self.num_operators
        return row.view(len(words), -1), self.plan_of(words.index_select(0, pattern), operator)

    def plan_densely(self, words: Tensor) -> tuple[Tensor, OperatorPlan]:
        """As `plan`, on any device and without looking for repeats: shapes depend on U alone, nothing is waited for."""
        patterns = len(words)
        operator = torch.arange(self.num_operators, device=words.device).repeat(patterns)
        words = words.repeat_interleave(self.num_operators, dim=0)
        own = torch.arange(len(operator), device=words.device)
        senders = own[:, None]
        if self.relayed:
            senders = self.operator[operator] + (own - operator)[:, None]
        return own.view(patterns, -1), OperatorPlan(words, operator, words, operator, senders, own)

    def neighbourhoods(self, words: Tensor) -> Tensor:
        """What the state of each operator in each pattern [U, W] depends on: itself and some bits [U * O, 1 + W]."""
        operators = torch.arange(self.num_operators)
        return _keys(operators.expand(len(words), -1), words[:, None] & self._far)

    def prepare(self) -> Prepared:
        """Computes what is the same for all patterns."""
        nodes = self.inputs()
        first = self.first.project(nodes)
        # Conditions and effects hear themselves alone, with an attention of one.
        heard = first.values[: self.num_fixed] + self.first.bias
        fixed = self.first_norm(nodes[: self.num_fixed] + F.relu(heard))
        return Prepared(nodes, first, self.second.project(fixed))

    def states_of(self, plan: OperatorPlan, prepared: Prepared) -> Tensor:
        """The states [S, hidden] of a plan."""
        fixed = self.num_fixed
        words, operator, near_words, near, row, own = plan
        near_log_edges = self._log_edges(near_words, near)
        states = self.first.attend(prepared.first, fixed + near, self._nodes(near, self.operator[near]), near_log_edges)
        states = self.first_norm(prepared.nodes.index_select(0, fixed + near) + F.relu(states))

        projected = Projected(*map(torch.cat, zip(prepared.second, self.second.project(states), strict=True)))
        log_edges = self._log_edges(words, operator) if self.relayed else near_log_edges
        attended = self.second.attend(projected, fixed + own, self._nodes(operator, row), log_edges)
        second: Tensor = self.second_norm(states.index_select(0, own) + F.relu(attended))
        return second

    def plan_of(self, words: Tensor, operator: Tensor) -> OperatorPlan:
        """The states of layer one that layer two needs, each once, for operators [S] under packed conditions [S, W]."""
        if not self.relayed:
            own = torch.arange(len(operator))
            return OperatorPlan(words, operator, words, operator, own[:, None], own)
        needed = self._senders[operator]  # [S, Jo]
        found, row = distinct_rows(_keys(needed, words[:, None] & self._near[needed]))
        row = row.view(needed.shape)
        own = row.gather(1, self._own[operator][:, None])[:, 0]
        return OperatorPlan(words, operator, words[found // needed.shape[1]], needed.flatten()[found], row, own)

    def _nodes(self, operator: Tensor, row: Tensor) -> Tensor:
        """[S, J]: who sends to operators [S], as nodes; `row` [S, Jo] numbers the operators among them."""
        return torch.cat(
            [self.condition[operator], self.num_conditions + self.effect[operator], self.num_fixed + row], dim=1
        )

    def _log_edges(self, words: Tensor, operator: Tensor) -> Tensor:
        """[S, J]: log of the number of edges from each sender, -inf from an unlit condition."""
        log_edges = self.log_edges[operator]
        lit = self.conditions.lit(words, self.condition[operator])
        log_edges[:, : lit.shape[1]].masked_fill_(~lit, -torch.inf)
        return log_edges


def _keys(operator: Tensor, bits: Tensor) -> Tensor:
    """[R, J] and [R, J, W] -> [R * J, 1 + W]."""
    return torch.cat([operator[..., None], bits], dim=-1).flatten(0, 1)


def _senders(edges: Tensor, receivers: int) -> tuple[Tensor, Tensor]:
    """(sender, receiver) pairs [E, 2] -> per receiver its senders [R, J] and the logs of their numbers of edges.

    Rows are padded with sender 0 and -inf.
    """
    pairs, repeats = torch.unique(edges, dim=0, return_counts=True) if len(edges) else (edges, edges[:, 0])
    width = int(torch.bincount(pairs[:, 1], minlength=receivers).max())
    senders = torch.zeros(receivers, width, dtype=torch.int64)
    log_edges = torch.full((receivers, width), -torch.inf)
    filled = [0] * receivers
    for (sender, receiver), number in zip(pairs.tolist(), repeats.log().tolist(), strict=True):
        senders[receiver, filled[receiver]] = sender
        log_edges[receiver, filled[receiver]] = number
        filled[receiver] += 1
    return senders, log_edges
