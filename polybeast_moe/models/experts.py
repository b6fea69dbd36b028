"""The experts: E small networks of the same shape, run as two wide products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.models.initialise import HIDDEN_GAIN, LAST_GAIN


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

    def forward(self, features: Tensor) -> Tensor:
        """[N, F] -> [N, E, A]."""
        hidden = F.relu(F.linear(features, self.weight_in.flatten(0, 1), self.bias_in.flatten()))
        by_expert = hidden.view(-1, *self.bias_in.shape).transpose(0, 1)  # [E, N, hidden]
        return torch.baddbmm(self.bias_out, by_expert, self.weight_out).transpose(0, 1)
