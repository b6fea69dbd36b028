"""The encoder of the inventory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.models.initialise import orthogonal

_LETTERS = 128  # NetHack calls stacks by ASCII characters
_ITEM = 64


class InventoryEncoder(nn.Module):
    """Each stack by its glyph and letter, summarised by mean and maximum: [N, 55] twice -> [N, out_features].

    The order of the stacks does not matter (Zaheer et al. 2017, "Deep Sets"); the letter is what a prompt asks for.
    """

    def __init__(self, embedding: int, out_features: int) -> None:
        super().__init__()
        self.letter = nn.Embedding(_LETTERS, embedding)
        self.item = orthogonal(nn.Linear(embedding, _ITEM))
        self.out = orthogonal(nn.Linear(2 * _ITEM + 1, out_features))

    def forward(self, glyphs: Tensor, letters: Tensor, table: Tensor) -> Tensor:
        """[N, 55] int16, [N, 55] uint8 (0: no stack), embeddings [MAX_GLYPH + 1, embedding] -> [N, out_features].

        After a ReLU. An empty inventory is all zeros before the last layer.
        """
        carried = (letters != 0).float()[..., None]
        both = F.embedding(glyphs.int(), table) + self.letter(letters.int().clamp(max=_LETTERS - 1))
        items = F.relu(self.item(both)) * carried
        count = carried.sum(1)
        mean = items.sum(1) / count.clamp(min=1)
        return F.relu(self.out(torch.cat([mean, items.amax(1), torch.log1p(count)], dim=1)))
