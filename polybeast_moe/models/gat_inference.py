"""Graph attention for inference on a CPU: the forward pass of `gat` as machine code.

Between two versions of the weights a call meets some thirty new neighbourhoods. For so few, torch spends its time on
starting operations and not on arithmetic. The values are those of `gat` up to rounding.
"""

# numba infers the types of the kernels' arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.models.gat import NEGATIVE_SLOPE, DistinctGraphAttention, GraphAttention
from polybeast_moe.ops.compiled import compiled


class OperatorInference:
    """The states of operators under conditions, at the weights of the moment in which it is made."""

    def __init__(self, attention: DistinctGraphAttention) -> None:
        fixed = attention.num_fixed
        nodes = attention.inputs()
        first = F.linear(nodes, _joint_projection(attention.first))
        heard = F.relu(first[:fixed, : nodes.shape[1]] + attention.first.bias)
        second_projection = _joint_projection(attention.second)
        second_fixed = F.linear(attention.first_norm(nodes[:fixed] + heard), second_projection)
        conditions = attention.conditions
        graph = (
            attention.condition, attention.effect, attention.log_edges, conditions.word, conditions.bit,
            conditions.bound,
        )  # fmt: skip
        self._attention = attention
        self._graph = tuple(tensor.numpy() for tensor in graph)
        self._heads = attention.first.att_src.shape[1]
        self._inputs = nodes[fixed:]
        self._first, self._second_fixed = (first[:fixed], first[fixed:]), second_fixed
        self._second_projection = second_projection

    def states(self, words: Tensor, operator: Tensor) -> Tensor:
        """As `DistinctGraphAttention.states_of`: operators [S] under packed conditions [S, W] -> [S, hidden]."""
        attention = self._attention
        _, _, near_words, near, row, own = attention.plan_of(words, operator)
        states = self._layer(
            attention.first, attention.first_norm, *self._first, self._inputs,
            near_words, near, attention.operator.index_select(0, near), near,
        )  # fmt: skip
        moving = F.linear(states, self._second_projection)
        return self._layer(
            attention.second, attention.second_norm, self._second_fixed, moving, states, words, operator, row, own
        )

    def _layer(
        self,
        layer: GraphAttention,
        norm: nn.LayerNorm,
        fixed: Tensor,
        moving: Tensor,
        residual: Tensor,
        words: Tensor,
        operator: Tensor,
        row: Tensor,
        own: Tensor,
    ) -> Tensor:
        """One layer with ReLU, residual and LayerNorm: what `_receive` reads, as arrays."""
        out = residual.new_empty(len(operator), residual.shape[1])
        parameters = (layer.bias, norm.weight, norm.bias)
        _receive(
            *_arrays(fixed, moving, residual, words, operator, row, own), *self._graph, *_arrays(*parameters),
            norm.eps, self._heads, out.numpy(),
        )  # fmt: skip
        return out


def _joint_projection(layer: Any) -> Tensor:
    """[hidden + 2 H, hidden]: values, a_src . V and a_dst . V of a node by one product."""
    assert isinstance(layer, GraphAttention)
    by_head = layer.lin.weight.view(*layer.att_src.shape[1:], -1)  # [H, hidden / H, hidden]
    send, receive = ((vector[0, ..., None] * by_head).sum(1) for vector in (layer.att_src, layer.att_dst))
    return torch.cat([layer.lin.weight, send, receive])


def _arrays(*tensors: Tensor) -> tuple[np.ndarray[Any, Any], ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)


@compiled
def _receive(
    fixed, moving, residual, words, operator, row, own,
    condition, effect, log_edges, word, bit, bound,
    bias, scale, shift, epsilon, heads, out,
):  # fmt: skip
    """Rows of `fixed` and `moving` hold values, scores to send and scores to receive of conditions and effects, and of
    operators; `row` [S, Jo] and `own` [S] are rows of `moving`, `own` of `residual` too."""
    hidden = out.shape[1]
    width = hidden // heads
    silent, slope = np.float32(-np.inf), np.float32(NEGATIVE_SLOPE)
    most = log_edges.shape[1]
    sender, edges, weight = np.empty(most, np.int64), np.empty(most, np.float32), np.empty(most, np.float32)
    after_conditions, after_effects = condition.shape[1], condition.shape[1] + effect.shape[1]
    conditions, num_fixed = word.size, fixed.shape[0]
    for s in range(out.shape[0]):
        o, state = operator[s], out[s]
        count = 0
        for j in range(most):
            if log_edges[o, j] == silent:
                continue
            if j < after_conditions:
                node = condition[o, j]
                if not (bound[node] and (words[s, word[node]] >> bit[node]) & 1):
                    continue
            elif j < after_effects:
                node = conditions + effect[o, j - after_conditions]
            else:
                node = num_fixed + row[s, j - after_effects]
            sender[count], edges[count] = node, log_edges[o, j]
            count += 1
        for h in range(heads):
            receive = moving[own[s], hidden + heads + h]
            largest = silent
            for k in range(count):
                node = sender[k]
                send = fixed[node, hidden + h] if node < num_fixed else moving[node - num_fixed, hidden + h]
                logit = send + receive
                logit = (logit if logit > 0 else slope * logit) + edges[k]
                weight[k] = logit
                largest = max(largest, logit)
            total = np.float32(0)
            for k in range(count):
                weight[k] = np.exp(weight[k] - largest)
                total += weight[k]
            part = state[h * width : (h + 1) * width]
            part[:] = 0
            for k in range(count):
                node, share = sender[k], weight[k] / total
                values = fixed[node] if node < num_fixed else moving[node - num_fixed]
                values = values[h * width : (h + 1) * width]
                for d in range(width):
                    part[d] += share * values[d]
        _finish(state, bias, residual[own[s]], scale, shift, epsilon)


@compiled
def _finish(state, bias, residual, scale, shift, epsilon):
    """LayerNorm(residual + ReLU(state + bias)), in place."""
    mean = np.float32(0)
    for d in range(state.size):
        heard = state[d] + bias[d]
        state[d] = residual[d] + (heard if heard > 0 else np.float32(0))
        mean += state[d]
    mean /= np.float32(state.size)
    variance = np.float32(0)
    for d in range(state.size):
        state[d] -= mean
        variance += state[d] * state[d]
    scaled = np.float32(1) / np.sqrt(variance / np.float32(state.size) + np.float32(epsilon))
    for d in range(state.size):
        state[d] = state[d] * scaled * scale[d] + shift[d]
