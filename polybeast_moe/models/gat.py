"""Graph attention over the knowledge graph, once for each distinct neighbourhood.

Two layers of GAT (Velickovic et al. 2018), each followed by ReLU, the residual and a LayerNorm. With V_j = W h_j and,
per head, logits e_ij = LeakyReLU(a_src . V_j + a_dst . V_i), node i becomes the sum over its senders j of
softmax_j(e_ij) V_j.

The graph is static and an observation only decides which conditions send. So what an operator becomes in layer one is a
function of which of ITS conditions are lit, and in layer two of those and of its sending operators' conditions. A batch
shows few of these neighbourhoods (an operator with eight conditions has tens of them where the whole graph has a
thousand patterns), so attention runs once for each, and an index tells which state an operator has in which pattern.
Values and gradients are those of GAT over a copy of the graph a row. A condition receives only from itself: one state
for all patterns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.models.distinct import distinct_rows
from polybeast_moe.models.message_edges import MessageEdges
from polybeast_moe.models.weighted_sum import gather_rows, weighted_sum

NEGATIVE_SLOPE = 0.2
_DENSE_STATES = 64  # states an operator, up to which sum_by_pattern multiplies
_KEY_BITS = 52  # bits of a neighbourhood in one number: float64 is exact below 2**53


class OperatorStates(NamedTuple):
    """The states of the operators in U patterns, each distinct one stored once."""

    states: Tensor
    """[S, hidden]."""
    operator: Tensor
    """[S] int64: whose state it is."""
    row: Tensor
    """[U, O] int64: which row of `states` an operator has in a pattern."""

    def sum_by_pattern(self, terms: Tensor) -> Tensor:
        """Sums a term of each state [S, F] over the operators of each pattern -> [U, F].

        As long as there are few states a product with the dense 0/1 matrix of who has which is faster than gathering.
        """
        patterns, operators = self.row.shape
        if len(terms) > _DENSE_STATES * operators:
            return gather_rows(terms, self.row).sum(1)
        return terms.new_zeros(patterns, len(terms)).scatter_(1, self.row, 1.0) @ terms


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

    def project(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[R, hidden] -> values V [R, hidden], logits as a sender and as a receiver [R, H]."""
        values: Tensor = self.lin(states)
        by_head = values.view(len(values), *self.att_src.shape[1:])
        return values, (by_head * self.att_src).sum(-1), (by_head * self.att_dst).sum(-1)

    def attend(self, values: Tensor, send: Tensor, receive: Tensor, senders: Tensor, log_edges: Tensor) -> Tensor:
        """Attention of S receivers over J senders each.

        Args:
            values: [R, hidden].
            send: [R, H], logits as senders.
            receive: [S, H], logits of the receivers.
            senders: [S, J] int64, rows of `values`.
            log_edges: [S, J], log of the number of parallel edges; -inf where a sender is silent.

        Returns:
            [S, hidden].
        """
        logits = F.leaky_relu(gather_rows(send, senders) + receive[:, None], NEGATIVE_SLOPE)
        weights = (logits + log_edges[..., None]).softmax(dim=1)
        return weighted_sum(values, senders, weights) + self.bias


class GraphAttentionStack(nn.Module):
    """Node embeddings and two attention layers: what both implementations share. Subclasses run them.

    Nodes are the conditions, then the operators; the input of a node is its identity plus its type.
    """

    def __init__(self, conditions: int, operators: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.num_conditions, self.num_operators = conditions, operators
        self.identity = nn.Parameter(torch.randn(conditions + operators, hidden))
        self.node_type = nn.Parameter(torch.randn(2, hidden) * 0.5)
        self.first, self.second = self.layer(hidden, heads), self.layer(hidden, heads)
        self.first_norm, self.second_norm = nn.LayerNorm(hidden), nn.LayerNorm(hidden)

    def layer(self, hidden: int, heads: int) -> nn.Module:
        """Makes one attention layer."""
        raise NotImplementedError

    def inputs(self) -> Tensor:
        """Input states of the nodes, [P + O, hidden]."""
        types = self.node_type.repeat_interleave(
            torch.tensor([self.num_conditions, self.num_operators], device=self.node_type.device), dim=0
        )
        return self.identity + types


class DistinctGraphAttention(GraphAttentionStack):
    """Exact GAT, run once for each distinct neighbourhood."""

    first: GraphAttention
    second: GraphAttention
    condition: Tensor
    operator: Tensor
    log_edges: Tensor
    near: Tensor
    far: Tensor

    def __init__(self, conditions: int, operators: int, edges: MessageEdges, hidden: int, heads: int) -> None:
        super().__init__(conditions, operators, hidden, heads)
        own = torch.arange(operators)[:, None].expand(-1, 2)
        condition, condition_log_edges = _senders(edges.condition, operators)
        operator, operator_log_edges = _senders(torch.cat([edges.operator, own]), operators)
        near = torch.zeros(conditions, operators, dtype=torch.bool)
        near[edges.condition[:, 0], edges.condition[:, 1]] = True
        far = near.clone()
        for sender, receiver in edges.operator.tolist():
            far[:, receiver] |= near[:, sender]
        buffers = {
            "condition": condition,  # [O, Jc]: the conditions that may send to an operator
            "operator": operator,  # [O, Jo]: the operators that send to it, itself among them
            "log_edges": torch.cat([condition_log_edges, operator_log_edges], dim=1),  # [O, Jc + Jo]
            "near": _key_matrix(near),  # [keys, P, O]: numbers the conditions that decide layer one
            "far": _key_matrix(far),  # the same for layer two
        }
        for name, buffer in buffers.items():
            self.register_buffer(name, buffer, persistent=False)
        self.relayed = bool(len(edges.operator))

    def layer(self, hidden: int, heads: int) -> nn.Module:
        """Makes one attention layer."""
        return GraphAttention(hidden, heads)

    def forward(self, lit: Tensor) -> OperatorStates:
        """Lit conditions [U, P] (0 or 1, float) -> operator states."""
        conditions = self.num_conditions
        nodes = self.inputs()
        values, send, receive = self.first.project(nodes)
        pattern, operator, near = self._neighbourhoods(lit, self.near)
        log_edges = self._log_edges(lit, pattern, operator)
        senders = torch.cat([self.condition, conditions + self.operator], dim=1)[operator]
        attended = self.first.attend(values, send, gather_rows(receive, conditions + operator), senders, log_edges)
        # A condition hears itself alone, with an attention of one.
        heard = torch.cat([values[:conditions] + self.first.bias, attended])
        before = torch.cat([nodes[:conditions], nodes.index_select(0, conditions + operator)])
        states = self.first_norm(before + F.relu(heard))

        values, send, receive = self.second.project(states)
        far = near
        if self.relayed:
            pattern, operator, far = self._neighbourhoods(lit, self.far)
            log_edges = self._log_edges(lit, pattern, operator)
        own = conditions + near[pattern, operator]
        relayed = conditions + near[pattern[:, None], self.operator[operator]]
        senders = torch.cat([self.condition[operator], relayed], dim=1)
        attended = self.second.attend(values, send, gather_rows(receive, own), senders, log_edges)
        return OperatorStates(self.second_norm(states.index_select(0, own) + F.relu(attended)), operator, far)

    def _neighbourhoods(self, lit: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where each distinct neighbourhood is found, pattern [S] and operator [S], and which one is where [U, O]."""
        operators = torch.arange(self.num_operators, device=lit.device).expand(len(lit), -1)
        columns = [(lit.double() @ key).long() for key in keys]
        columns[0] = columns[0] * self.num_operators + operators
        first, number = distinct_rows([column.flatten() for column in columns])
        return first // self.num_operators, first % self.num_operators, number.view(operators.shape)

    def _log_edges(self, lit: Tensor, pattern: Tensor, operator: Tensor) -> Tensor:
        """[S, Jc + Jo]: log of the number of edges from each sender, -inf from an unlit condition."""
        log_edges = self.log_edges[operator]
        silent = lit[pattern[:, None], self.condition[operator]] == 0
        log_edges[:, : self.condition.shape[1]].masked_fill_(silent, -torch.inf)
        return log_edges


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


def _key_matrix(reads: Tensor) -> Tensor:
    """[P, O] bool -> [keys, P, O] float64: lit @ key numbers the lit ones among the conditions that a column reads."""
    place = reads.long().cumsum(0) - 1
    keys = max(1, -(-int(reads.sum(0).max()) // _KEY_BITS))
    matrix = torch.zeros(keys, *reads.shape, dtype=torch.float64)
    condition, operator = reads.nonzero(as_tuple=True)
    place = place[condition, operator]
    matrix[place // _KEY_BITS, condition, operator] = 2.0 ** (place % _KEY_BITS).double()
    return matrix
