"""Where the nearest landmarks are: direction and distance from the hero, read off the whole map.

The crop shows what is near. Stairs across a room, or the unexplored end of a corridor, have no direction there.
"""

# numba infers the types of the kernel's arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from nle import nethack
from numpy.typing import NDArray
from torch import Tensor, nn

from polybeast_moe import _C
from polybeast_moe.models.initialise import orthogonal
from polybeast_moe.ops.compiled import compiled

LANDMARKS: dict[str, tuple[str, ...]] = {
    "stairs_down": ("StairsDown",),
    "stairs_up": ("StairsUp",),
    "door": ("Doorway", "OpenDoor", "ClosedDoor"),
    "object": ("Item",),
    "monster": ("Monster",),
    "pet": ("Pet",),
    "frontier": (),  # by the squares around it
}
"""Each with the features (csrc/nethack/generate_tables.py) of the glyphs that show it."""

_STAIRS_UNDERFOOT = {"stairs_down": "stairs_down_underfoot", "stairs_up": "stairs_up_underfoot"}
_FRONTIER = list(LANDMARKS).index("frontier")
# Bits behind those of the landmarks: what a frontier is made of, as the conditions room_frontier and corridor_end.
_STONE, _OPEN, _CORRIDOR, _CONTINUES = (1 << (len(LANDMARKS) + i) for i in range(4))
_CONTINUING = ("Monster", "Pet", "Unseen", "Item", "Trap", "Walkable", "ClosedDoor")

_ROWS, _COLUMNS = nethack.DUNGEON_SHAPE
_SQUARES = 1 << 11  # more than a map has
_NOWHERE = 1 << 30  # beyond all others
_OUT_FEATURES = 64
FEATURES = 6
"""Numbers a landmark: there is one, dx and dy in units of ten squares, their signs, 1 / (1 + distance)."""


class LandmarkEncoder(nn.Module):
    """The nearest landmark of each kind as features, then a linear layer and a ReLU: -> [N, out_features].

    Distance is counted in king's moves; among squares equally far the one with the least |dx| + |dy| counts, then the
    first, row by row. The hero's own square does not count, but for the stairs that he is known to stand on. A
    frontier is what borders on the unexplored: a square of a room, or a doorway, with blank stone above, below, left or
    right of it, or a corridor square from which at most one way leads on.
    """

    bits_of_glyph: Tensor
    underfoot_word: Tensor
    underfoot_bit: Tensor
    on_it: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.out_features = _OUT_FEATURES
        self.register_buffer("bits_of_glyph", torch.from_numpy(_bits_of_glyphs()), persistent=False)
        names = _C.condition_names()
        bits = torch.tensor([names.index(condition) for condition in _STAIRS_UNDERFOOT.values()])
        self.register_buffer("underfoot_word", bits // 64, persistent=False)
        self.register_buffer("underfoot_bit", bits % 64, persistent=False)
        self.register_buffer("on_it", torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 1.0]), persistent=False)
        self.out = orthogonal(nn.Linear(len(LANDMARKS) * FEATURES, _OUT_FEATURES))

    def forward(self, glyphs: Tensor, blstats: Tensor, conditions: Tensor) -> Tensor:
        """[N, 21, 79] int16, [N, 27] int64, packed lit conditions [N, W] int64 -> [N, out_features], after a ReLU."""
        return F.relu(self.out(self.features(glyphs, blstats, conditions).flatten(1)))

    @torch.no_grad()
    def features(self, glyphs: Tensor, blstats: Tensor, conditions: Tensor) -> Tensor:
        """As `forward` -> [N, landmarks, FEATURES]; zeros where there is none."""
        hero = blstats[:, [nethack.NLE_BL_X, nethack.NLE_BL_Y]]
        find = self.by_numba if glyphs.device.type == "cpu" else self.by_torch
        found = _described(*find(glyphs, hero))
        underfoot = (conditions.index_select(1, self.underfoot_word) >> self.underfoot_bit) & 1  # [N, 2]: stairs
        stairs = underfoot.shape[1]  # which come first among the landmarks
        found[:, :stairs] = torch.where(underfoot.bool()[..., None], self.on_it, found[:, :stairs])
        return found

    def by_numba(self, glyphs: Tensor, hero: Tensor) -> tuple[Tensor, Tensor]:
        """Whether there is one [N, landmarks] and its offset dx, dy from the hero [N, landmarks, 2], int32."""
        offsets = np.zeros((len(glyphs), len(LANDMARKS), 2), dtype=np.int32)
        present = np.zeros((len(glyphs), len(LANDMARKS)), dtype=np.bool_)
        arrays = (part.contiguous().numpy() for part in (glyphs, hero, self.bits_of_glyph))
        _find_nearest(*arrays, present, offsets)
        return torch.from_numpy(present), torch.from_numpy(offsets)

    def by_torch(self, glyphs: Tensor, hero: Tensor) -> tuple[Tensor, Tensor]:
        """The same, on any device."""
        bits = self.bits_of_glyph[glyphs.int()]
        bits = bits | (_frontier(bits).int() << _FRONTIER)
        x, y = hero.int().unbind(1)
        square = torch.arange(_ROWS * _COLUMNS, dtype=torch.int32, device=glyphs.device).view(_ROWS, _COLUMNS)
        dx = (square % _COLUMNS - x[:, None, None]).abs()  # [N, 21, 79]
        dy = (square // _COLUMNS - y[:, None, None]).abs()
        key = (torch.maximum(dx, dy) << 8) + dx + dy  # king's moves first: they come before any |dx| + |dy|
        order = torch.where(key > 0, key * _SQUARES + square, _NOWHERE)
        kinds = [torch.where((bits >> kind & 1).bool(), order, _NOWHERE).amin((1, 2)) for kind in range(len(LANDMARKS))]
        nearest = torch.stack(kinds, dim=1)
        present, at = nearest < _NOWHERE, nearest % _SQUARES
        offsets = torch.stack([at % _COLUMNS - x[:, None], at // _COLUMNS - y[:, None]], dim=2)
        return present, offsets * present[..., None]


def _described(present: Tensor, offsets: Tensor) -> Tensor:
    """[N, landmarks] bool and [N, landmarks, 2] -> [N, landmarks, FEATURES]."""
    there, offset = present.float(), offsets.float()
    near = there / (1 + offset.abs().amax(2))
    return torch.cat([there[..., None], offset / 10, offset.sign(), near[..., None]], dim=2)


def _frontier(bits: Tensor) -> Tensor:
    """[N, 21, 79] bits -> bool."""
    around = F.pad(bits, (1, 1, 1, 1))
    shifted = {
        (dy, dx): around[:, 1 + dy : 1 + dy + _ROWS, 1 + dx : 1 + dx + _COLUMNS]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    }
    beyond = shifted[-1, 0] | shifted[1, 0] | shifted[0, -1] | shifted[0, 1]
    ways = sum((part & _CONTINUES).ne(0).int() for part in shifted.values())
    return (bits & _OPEN).bool() & (beyond & _STONE).bool() | (bits & _CORRIDOR).bool() & (ways <= 1)


def _bits_of_glyphs() -> NDArray[np.int32]:
    """[MAX_GLYPH + 1]: bit i for landmark i, then `_STONE`, `_OPEN`, `_CORRIDOR` and `_CONTINUES`."""
    features, names = _C.glyph_features(), _C.glyph_feature_names()

    def shows(*wanted: str) -> NDArray[np.bool_]:
        return np.asarray((features & np.uint64(sum(1 << names.index(name) for name in wanted))) != 0)

    bits = sum(shows(*wanted).astype(np.int32) << i for i, wanted in enumerate(LANDMARKS.values()))
    bits = bits | shows("Stone") * _STONE | (shows("Walkable") & ~shows("Corridor")) * _OPEN
    return np.asarray(bits | shows("Corridor") * _CORRIDOR | shows(*_CONTINUING) * _CONTINUES, dtype=np.int32)


@compiled
def _find_nearest(glyphs, hero, bits_of_glyph, present, offsets):
    """`LandmarkEncoder.by_torch` row by row: one pass over the map, most of which is blank."""
    rows, columns = glyphs.shape[1], glyphs.shape[2]
    best = np.empty(present.shape[1], np.int64)
    for n in range(glyphs.shape[0]):
        best[:] = _NOWHERE
        for row in range(rows):
            dy = row - hero[n, 1]
            for column in range(columns):
                bits = bits_of_glyph[glyphs[n, row, column]]
                if bits == _STONE or bits == 0:
                    continue
                edge = bits & _OPEN != 0 and _borders_on_stone(glyphs[n], row, column, bits_of_glyph)
                end = bits & _CORRIDOR != 0 and _ways_on(glyphs[n], row, column, bits_of_glyph) <= 1
                if edge or end:
                    bits |= 1 << _FRONTIER
                dx = column - hero[n, 0]
                key = (max(abs(dx), abs(dy)) << 8) + abs(dx) + abs(dy)
                if key == 0:
                    continue
                for kind in range(best.size):
                    if bits >> kind & 1 and key < best[kind]:
                        best[kind] = key
                        present[n, kind] = True
                        offsets[n, kind, 0], offsets[n, kind, 1] = dx, dy


@compiled
def _borders_on_stone(glyphs, row, column, bits_of_glyph):
    found = 0
    if row > 0:
        found |= bits_of_glyph[glyphs[row - 1, column]]
    if row + 1 < glyphs.shape[0]:
        found |= bits_of_glyph[glyphs[row + 1, column]]
    if column > 0:
        found |= bits_of_glyph[glyphs[row, column - 1]]
    if column + 1 < glyphs.shape[1]:
        found |= bits_of_glyph[glyphs[row, column + 1]]
    return found & _STONE != 0


@compiled
def _ways_on(glyphs, row, column, bits_of_glyph):
    """The number of neighbours through which a way goes on."""
    count = 0
    for r in range(max(row - 1, 0), min(row + 2, glyphs.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, glyphs.shape[1])):
            if (r != row or c != column) and bits_of_glyph[glyphs[r, c]] & _CONTINUES:
                count += 1
    return count
