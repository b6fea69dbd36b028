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

# numba infers the types of the kernels' arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
import torch
from nle import nethack
from torch import Tensor, nn

from polybeast_moe.ops.compiled import compiled

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
_LOG_COUNT = np.log1p(np.arange(257, dtype=np.float32))


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
        self._tables = tuple(constant.numpy() for constant in constants.values())

    def forward(self, blstats: Tensor) -> Tensor:
        """[N, 27] -> [N, out_features]."""
        if blstats.device.type != "cpu":
            return self.by_torch(blstats)
        features = torch.empty(len(blstats), self.out_features)
        _encode_blstats(blstats.contiguous().numpy(), *self._tables, features.numpy())
        return features

    def by_torch(self, blstats: Tensor) -> Tensor:
        """[N, 27] -> [N, out_features], as `forward` but on any device."""
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
        if message.device.type != "cpu":
            return self.by_torch(message)
        features = torch.zeros(len(message), self.out_features)
        _count_characters(message.contiguous().numpy(), _LOG_COUNT, features.numpy())
        return features

    def by_torch(self, message: Tensor) -> Tensor:
        """[N, 256] -> [N, out_features], as `forward` but on any device."""
        counts = torch.zeros(len(message), 256, device=message.device)
        counts.scatter_add_(1, message.long(), counts.new_ones(()).expand(message.shape))  # bincount would wait
        return torch.log1p(counts[:, _FIRST_PRINTABLE : _LAST_PRINTABLE + 1])


@compiled
def _encode_blstats(
    blstats, linear_index, middle, scale, log_index, part_index, whole_index, one_hot_index, one_hot_value, mask, out
):  # fmt: skip
    """`BlstatsEncoder.by_torch` row by row: one pass instead of twenty operations."""
    zero, one, log_scale, most = np.float32(0), np.float32(1), np.float32(_LOG_SCALE), np.float32(2)
    for n in range(blstats.shape[0]):
        row, features = blstats[n], out[n]
        at = 0
        for i in range(linear_index.size):
            features[at] = (np.float32(row[linear_index[i]]) - middle[i]) * scale[i]
            at += 1
        features[at] = min(max(np.float32(row[nethack.NLE_BL_ALIGN]), -most), most)
        at += 1
        for i in range(log_index.size):
            features[at] = np.log1p(max(np.float32(row[log_index[i]]), zero)) / log_scale
            at += 1
        for i in range(part_index.size):
            features[at] = np.float32(row[part_index[i]]) / max(np.float32(row[whole_index[i]]), one)
            at += 1
        for i in range(one_hot_index.size):
            features[at] = np.float32(row[one_hot_index[i]] == one_hot_value[i])
            at += 1
        for i in range(mask.size):
            features[at] = np.float32((row[nethack.NLE_BL_CONDITION] & mask[i]) != 0)
            at += 1


@compiled
def _count_characters(message, log_count, out):
    """log(1 + count) of each printable character of each line."""
    counts = np.zeros(256, np.int64)
    for n in range(message.shape[0]):
        counts[:] = 0
        for i in range(message.shape[1]):
            counts[message[n, i]] += 1
        for c in range(out.shape[1]):
            out[n, c] = log_count[counts[_FIRST_PRINTABLE + c]]
