"""The network that every system trains where systems are compared: plain torch, and nothing else imported.

An egocentric glyph crop through two convolutions, the status line beside it, one hidden layer, a policy and a value. No
recurrence, graph or mixture: what differs between systems is then how they feed it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GLYPHS = 5976  # nle.nethack.MAX_GLYPH; the number itself stands for a square outside the map
CROP = 9
STATUS = 27
HIDDEN = 256
_EMBEDDING, _CHANNELS = 24, 32


class SharedTrunk(nn.Module):
    """(crop [N, 9, 9] of glyphs, blstats [N, 27]) -> [N, 256], any number types."""

    def __init__(self) -> None:
        super().__init__()
        self.glyph = nn.Embedding(GLYPHS + 1, _EMBEDDING)
        self.convolutions = nn.Sequential(
            nn.Conv2d(_EMBEDDING, _CHANNELS, 3), nn.ReLU(), nn.Conv2d(_CHANNELS, _CHANNELS, 3, stride=2), nn.ReLU()
        )
        side = (CROP - 2 - 3) // 2 + 1
        self.join = nn.Sequential(nn.Linear(_CHANNELS * side * side + STATUS, HIDDEN), nn.ReLU())

    def forward(self, crop: Tensor, blstats: Tensor) -> Tensor:
        """As the class says."""
        squares = self.glyph(crop.int()).permute(0, 3, 1, 2)
        status = blstats.float()
        status = torch.sign(status) * torch.log1p(status.abs()) / 5
        return self.join(torch.cat([self.convolutions(squares).flatten(1), status], dim=1))


class SharedNetwork(nn.Module):
    """(crop, blstats) -> action logits [N, A], value [N]."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.trunk = SharedTrunk()
        self.policy = nn.Linear(HIDDEN, num_actions)
        self.value = nn.Linear(HIDDEN, 1)

    def forward(self, crop: Tensor, blstats: Tensor) -> tuple[Tensor, Tensor]:
        """As the class says."""
        features = self.trunk(crop, blstats)
        return self.policy(features), self.value(features).squeeze(1)


def size(module: nn.Module) -> int:
    """How many parameters it has."""
    return sum(parameter.numel() for parameter in module.parameters())
