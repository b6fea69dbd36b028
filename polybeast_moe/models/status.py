"""The encoders of the bottom lines and the message: fixed features, nothing learned.

How each statistic of `blstats` is normalised (`nle.nethack.NLE_BL_*`; ranges from NetHack 3.6.7):

| statistics | feature |
|---|---|
| x, y | (v - middle of the map) / half of it |
| strength (3..25), dexterity, constitution, intelligence, wisdom, charisma | (v - 12) / 6 |
| strength percentage (3..125) | (v - 18) / 50 |
| depth, level number, monster level, experience level | v / 10 |
| armour class (10 is bare, lower is better) | (v - 5) / 5 |
| alignment (-1, 0, 1) | as it is, clamped to [-2, 2] |
| gold, score, experience points, turn, maximal hit points and energy | log(1 + v) / 5 |
| hit points, energy | v / their maximum |
| hunger (7 states), encumbrance (6), dungeon (8) | one-hot |
| condition mask (13 bits) | one feature a bit |
"""

from __future__ import annotations

import torch
from nle import nethack
from torch import Tensor, nn

# (index, middle, scale): feature = (value - middle) / scale
_LINEAR = (
    (nethack.NLE_BL_X, 39.0, 39.0),
    (nethack.NLE_BL_Y, 10.0, 10.0),
    (nethack.NLE_BL_STR25, 12.0, 6.0),
    (nethack.NLE_BL_STR125, 18.0, 50.0),
    (nethack.NLE_BL_DEX, 12.0, 6.0),
    (nethack.NLE_BL_CON, 12.0, 6.0),
    (nethack.NLE_BL_INT, 12.0, 6.0),
    (nethack.NLE_BL_WIS, 12.0, 6.0),
    (nethack.NLE_BL_CHA, 12.0, 6.0),
    (nethack.NLE_BL_DEPTH, 0.0, 10.0),
    (nethack.NLE_BL_DLEVEL, 0.0, 10.0),
    (nethack.NLE_BL_HD, 0.0, 10.0),
    (nethack.NLE_BL_XP, 0.0, 10.0),
    (nethack.NLE_BL_AC, 5.0, 5.0),
)
_LOGARITHMIC = (
    nethack.NLE_BL_GOLD,
    nethack.NLE_BL_SCORE,
    nethack.NLE_BL_EXP,
    nethack.NLE_BL_TIME,
    nethack.NLE_BL_HPMAX,
    nethack.NLE_BL_ENEMAX,
)
_LOG_SCALE = 5.0
_RATIOS = ((nethack.NLE_BL_HP, nethack.NLE_BL_HPMAX), (nethack.NLE_BL_ENE, nethack.NLE_BL_ENEMAX))
_ONE_HOT = ((nethack.NLE_BL_HUNGER, 7), (nethack.NLE_BL_CAP, 6), (nethack.NLE_BL_DNUM, 8))

_FIRST_PRINTABLE, _LAST_PRINTABLE = 32, 126


class BlstatsEncoder(nn.Module):
    """[N, 27] int64 -> [N, out_features] float32 by the table of this module."""

    linear_index: Tensor
    middle: Tensor
    scale: Tensor
    log_index: Tensor
    part_index: Tensor
    whole_index: Tensor
    one_hot_index: Tensor
    one_hot_value: Tensor
    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        constants = {
            "linear_index": torch.tensor([index for index, _, _ in _LINEAR]),
            "middle": torch.tensor([middle for _, middle, _ in _LINEAR]),
            "scale": torch.tensor([1.0 / scale for _, _, scale in _LINEAR]),
            "log_index": torch.tensor(_LOGARITHMIC),
            "part_index": torch.tensor([part for part, _ in _RATIOS]),
            "whole_index": torch.tensor([whole for _, whole in _RATIOS]),
            "one_hot_index": torch.tensor([index for index, states in _ONE_HOT for _ in range(states)]),
            "one_hot_value": torch.tensor([state for _, states in _ONE_HOT for state in range(states)]),
            "mask": torch.tensor([1 << bit for bit in range(nethack.BL_MASK_BITS)]),
        }
        for name, constant in constants.items():
            self.register_buffer(name, constant, persistent=False)
        self.out_features = (
            len(_LINEAR) + 1 + len(_LOGARITHMIC) + len(_RATIOS) + len(self.one_hot_value) + nethack.BL_MASK_BITS
        )

    def forward(self, blstats: Tensor) -> Tensor:
        """[N, 27] -> [N, out_features]."""
        numbers = blstats.float()
        wholes = numbers.index_select(1, self.whole_index).clamp(min=1.0)
        return torch.cat(
            [
                (numbers.index_select(1, self.linear_index) - self.middle) * self.scale,
                numbers[:, nethack.NLE_BL_ALIGN, None].clamp(-2.0, 2.0),
                torch.log1p(numbers.index_select(1, self.log_index).clamp(min=0.0)) / _LOG_SCALE,
                numbers.index_select(1, self.part_index) / wholes,
                (blstats.index_select(1, self.one_hot_index) == self.one_hot_value).float(),
                (blstats[:, nethack.NLE_BL_CONDITION, None] & self.mask).ne(0).float(),
            ],
            dim=1,
        )


class MessageEncoder(nn.Module):
    """The message line as a bag of printable characters: log(1 + count) of each, [N, 256] uint8 -> [N, 95]."""

    out_features = _LAST_PRINTABLE - _FIRST_PRINTABLE + 1

    def forward(self, message: Tensor) -> Tensor:
        """[N, 256] -> [N, out_features]."""
        rows = message.shape[0]
        # One histogram over (row, character) pairs: cheaper on a CPU than a scatter of ones.
        pairs = message.int() + torch.arange(0, rows * 256, 256, dtype=torch.int32, device=message.device)[:, None]
        counts = torch.bincount(pairs.flatten(), minlength=rows * 256).view(rows, 256)
        return torch.log1p(counts[:, _FIRST_PRINTABLE : _LAST_PRINTABLE + 1].float())
