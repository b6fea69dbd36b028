"""Conditions as the engine packs them: one bit each, in 64-bit words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_WORD = 64


class PackedConditions(nn.Module):
    """Which bit of which word each of a graph's P conditions is; None: the engine knows none, it is never lit."""

    word: Tensor
    bit: Tensor
    bound: Tensor
    mask: Tensor

    def __init__(self, bits: Sequence[int | None]) -> None:
        super().__init__()
        known = torch.tensor([-1 if bit is None else bit for bit in bits], dtype=torch.int64)
        bound, known = known >= 0, known.clamp(min=0)
        self.register_buffer("word", known // _WORD, persistent=False)  # [P]
        self.register_buffer("bit", known % _WORD, persistent=False)  # [P]
        self.register_buffer("bound", bound, persistent=False)  # [P]
        mask = self.masks(torch.ones(len(bits), 1, dtype=torch.bool))[0]
        self.register_buffer("mask", mask, persistent=False)  # [W]: the bits that this graph reads
        self._host_mask = mask  # stays where it is when the module goes to a device

    def relevant(self, words: Tensor) -> Tensor:
        """The packed conditions [N, at least W] with only the words and bits that this graph reads [N, W]."""
        mask = self.mask if words.device == self.mask.device else self._host_mask
        return words[:, : len(mask)] & mask

    def unpack(self, words: Tensor) -> Tensor:
        """Packed words [N, W] -> lit conditions [N, P], 0 or 1 in float32."""
        return (words.index_select(1, self.word) >> self.bit).bitwise_and_(1) * self.bound.float()

    def pack(self, lit: Tensor) -> Tensor:
        """Lit conditions [N, P] (0 or 1) -> packed words [N, W] int64, as the engine writes them."""
        bits = (lit * self.bound).long() << self.bit  # distinct bits: their sum is their union
        return bits.new_zeros(len(lit), len(self.mask)).index_add_(1, self.word, bits)

    def lit(self, words: Tensor, condition: Tensor) -> Tensor:
        """Whether conditions [S, J] are lit in packed words [S, W] -> bool [S, J]."""
        bits = words.gather(1, self.word[condition]) >> self.bit[condition]
        return (bits & self.bound[condition]).bool()

    def masks(self, reads: Tensor) -> Tensor:
        """Which conditions somebody reads [P, R] bool -> their bits, packed [R, W] int64."""
        bits = (reads & self.bound[:, None]).long() << self.bit[:, None]
        words = int(self.word.max()) + 1
        return bits.new_zeros(words, reads.shape[1]).index_add_(0, self.word, bits).t().contiguous()
