"""The experts: E small networks of the same shape, all for every row or only where their weight is not zero."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.models.initialise import HIDDEN_GAIN, LAST_GAIN

# What it takes to start one expert for some rows, as multiply-adds of the same time: measured on one core, 320-128-23.
_START = 1_800_000


class Experts(nn.Module):
    """E two-layer networks: features [N, F] -> logits [N, E, A]."""

    def __init__(self, features: int, hidden: int, actions: int, experts: int) -> None:
        super().__init__()
        self.weight_in = nn.Parameter(torch.empty(experts, hidden, features))
        self.bias_in = nn.Parameter(torch.zeros(experts, hidden))
        self.weight_out = nn.Parameter(torch.empty(experts, hidden, actions))
        self.bias_out = nn.Parameter(torch.zeros(experts, 1, actions))
        for into, out in zip(self.weight_in.unbind(), self.weight_out.unbind(), strict=True):
            nn.init.orthogonal_(into, HIDDEN_GAIN)
            nn.init.orthogonal_(out, LAST_GAIN)

    def forward(self, features: Tensor, support: Tensor | None = None) -> Tensor:
        """[N, F] -> [N, E, A].

        With `support` [N, E] bool an expert runs only for the rows that it supports; its other logits are zero, and so
        are their gradients. A mixture whose weights are zero off the support comes out the same, gradients included.
        """
        if support is not None:
            return self._where_supported(features, support)
        hidden = F.relu(F.linear(features, self.weight_in.flatten(0, 1), self.bias_in.flatten()))
        by_expert = hidden.view(-1, *self.bias_in.shape).transpose(0, 1)  # [E, N, hidden]
        return torch.baddbmm(self.bias_out, by_expert, self.weight_out).transpose(0, 1)

    def dense_work(self, rows: int) -> int:
        """Multiply-adds of all experts for so many rows."""
        return rows * (self.weight_in.numel() + self.weight_out.numel())

    def sparse_work(self, rows: int, experts: int) -> int:
        """Multiply-adds of `experts` experts for `rows` rows in all, and what it costs to start each of them."""
        return self.dense_work(rows) // len(self.bias_in) + experts * _START

    def _where_supported(self, features: Tensor, support: Tensor) -> Tensor:
        expert, row = support.t().nonzero(as_tuple=True)  # sorted by expert
        shares = features.index_select(0, row).split_with_sizes(support.sum(0).tolist())
        parameters = (self.weight_in, self.bias_in, self.weight_out, self.bias_out)
        rows, experts = support.shape
        empty = features.new_zeros(rows * experts, self.weight_out.shape[2])
        logits = [
            torch.addmm(bias_out, F.relu(F.linear(share, weight_in, bias_in)), weight_out)
            for share, weight_in, bias_in, weight_out, bias_out in zip(
                shares, *(parameter.unbind() for parameter in parameters), strict=True
            )
            if len(share)
        ]
        ran = torch.cat(logits or [empty[:0]]).to(empty.dtype)  # autocast narrows them
        return empty.index_copy(0, row * experts + expert, ran).view(rows, experts, -1)
