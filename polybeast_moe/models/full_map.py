"""The encoder of the whole map."""

from __future__ import annotations

import torch.nn.functional as F
from nle import nethack
from torch import Tensor, nn

from polybeast_moe.models.initialise import orthogonal

_CHANNELS = (32, 32, 32)


class FullMapEncoder(nn.Module):
    """Glyph embeddings, three 3x3 convolutions of stride 2, a linear layer: [N, 21, 79] int16 -> [N, out_features].

    The crop's encoder sees what is near at full resolution; this one sees the level, coarsely.
    """

    def __init__(self, embedding: int, out_features: int) -> None:
        super().__init__()
        rows, columns = nethack.DUNGEON_SHAPE
        layers: list[nn.Module] = []
        for before, after in zip((embedding, *_CHANNELS), _CHANNELS, strict=False):
            layers += [orthogonal(nn.Conv2d(before, after, 3, stride=2, padding=1)), nn.ReLU()]
            rows, columns = (rows + 1) // 2, (columns + 1) // 2
        self.convolutions = nn.Sequential(*layers)
        self.out = orthogonal(nn.Linear(_CHANNELS[-1] * rows * columns, out_features))

    def forward(self, glyphs: Tensor, table: Tensor) -> Tensor:
        """[N, 21, 79] and each glyph's embedding [MAX_GLYPH + 1, embedding] -> [N, out_features], after a ReLU."""
        squares = F.embedding(glyphs.int(), table).permute(0, 3, 1, 2)
        return F.relu(self.out(self.convolutions(squares).flatten(1)))
