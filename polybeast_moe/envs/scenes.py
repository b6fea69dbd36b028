"""What kind of moment an observation shows, by rules on NLE's arrays alone. Pure.

The router reads conditions (csrc/nethack/conditions.cc); measured against those, any router that reads them would look
specialised. So nothing here goes through them: docs/evaluation.md states the rules in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCENES = ("survival", "combat", "exploration", "general")

NEAR = 2  # squares to a monster that make it combat
REACH = 10  # squares to an unexplored edge that make it exploration

_X, _Y, _HIT_POINTS, _MAX_HIT_POINTS, _HUNGER, _CONDITION = 0, 1, 10, 11, 21, 25  # nle.nethack.NLE_BL_*
_HUNGRY = 2  # hungry, weak, fainting, ...; 0 is satiated, 1 not hungry
_DEADLY = 1 | 2 | 4 | 8 | 16  # BL_MASK_: stoning, sliming, strangled, food poisoning, terminally ill
_MONSTERS_END, _INVISIBLE, _DETECTED, _DETECTED_END = 381, 762, 763, 1144  # glyphs: monsters come first, then pets
_CMAP = 2359  # GLYPH_CMAP_OFF: stone, what was never seen
_OPEN = _CMAP + np.array([12, 13, 14, 15, 16, 19, 20, 21, 22])  # doorways, doors, floor, corridors (rm.h)


def scenes(raw: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Returns the scene, an index into `SCENES`, of observations `glyphs` [N, 21, 79] and `blstats` [N, 27]: [N]."""
    blstats, glyphs = raw["blstats"], raw["glyphs"]
    conditions = [in_danger(blstats), monster_near(glyphs, blstats), unexplored_near(glyphs, blstats)]
    return np.asarray(np.select(conditions, [0, 1, 2], default=3), dtype=np.int64)


def in_danger(blstats: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Hit points at a third or less, hunger, or a deadly affliction: [N, 27] -> [N]."""
    low = 3 * blstats[:, _HIT_POINTS] <= blstats[:, _MAX_HIT_POINTS]
    return np.asarray(low | (blstats[:, _HUNGER] >= _HUNGRY) | (blstats[:, _CONDITION] & _DEADLY != 0))


def monster_near(glyphs: NDArray[np.int16], blstats: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A monster that is no pet within `NEAR` squares: [N, 21, 79], [N, 27] -> [N]."""
    monster = (glyphs < _MONSTERS_END) | (glyphs == _INVISIBLE) | ((glyphs >= _DETECTED) & (glyphs < _DETECTED_END))
    beside = _within(NEAR, glyphs, blstats) & ~_within(0, glyphs, blstats)
    return np.asarray((monster & beside).any(axis=(1, 2)))


def unexplored_near(glyphs: NDArray[np.int16], blstats: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Floor, corridor or door next to what was never seen, within `REACH` squares: [N, 21, 79], [N, 27] -> [N]."""
    dark = np.pad(glyphs == _CMAP, ((0, 0), (1, 1), (1, 1)))  # beyond the map there is nothing to explore
    beside = np.zeros(glyphs.shape, dtype=np.bool_)
    for row in range(3):
        for column in range(3):
            beside |= dark[:, row : row + glyphs.shape[1], column : column + glyphs.shape[2]]
    edge = np.isin(glyphs, _OPEN) & beside
    return np.asarray((edge & _within(REACH, glyphs, blstats)).any(axis=(1, 2)))


def _within(squares: int, glyphs: NDArray[np.int16], blstats: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which squares are at most so many from the hero, diagonals counting as one: [N, 21, 79]."""
    rows = np.abs(np.arange(glyphs.shape[1]) - blstats[:, _Y, None]) <= squares
    columns = np.abs(np.arange(glyphs.shape[2]) - blstats[:, _X, None]) <= squares
    return np.asarray(rows[:, :, None] & columns[:, None, :])
