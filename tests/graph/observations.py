"""Observations made by hand: a hero in the middle of an empty map, and what a test adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from nle import nethack as nh

from polybeast_moe import _C

X, Y = 39, 10  # where the hero stands unless a test says otherwise
HERO = nh.GLYPH_MON_OFF + next(i for i in range(nh.NUMMONS) if nh.permonst(i).mname == "monk")
KEYS = ("glyphs", "blstats", "message", "inv_glyphs", "inv_oclasses", "inv_letters", "misc")
DEFAULT_STATS = {
    "X": X, "Y": Y, "HP": 50, "HPMAX": 50, "ENE": 2, "ENEMAX": 2, "XP": 3, "DEPTH": 11, "DNUM": 0, "GOLD": 10, "AC": 9,
    "HUNGER": 1, "TIME": 500, "STR25": 10, "DEX": 10, "ALIGN": 0,
}  # fmt: skip

Squares = Mapping[tuple[int, int], int]


def monster(name: str) -> int:
    return nh.GLYPH_MON_OFF + _index(name, lambda i: nh.permonst(i).mname, nh.NUMMONS)


def pet(name: str) -> int:
    return monster(name) - nh.GLYPH_MON_OFF + nh.GLYPH_PET_OFF


def corpse(name: str) -> int:
    return monster(name) - nh.GLYPH_MON_OFF + nh.GLYPH_BODY_OFF


def thing(name: str) -> int:
    return nh.GLYPH_OBJ_OFF + _index(name, lambda i: nh.OBJ_NAME(nh.objclass(i)), nh.NUM_OBJECTS)


def place(explanation: str) -> int:
    return (
        nh.GLYPH_CMAP_OFF + 1 + _index(explanation, lambda i: nh.symdef.from_idx(i + 1).explanation, nh.MAXPCHARS - 1)
    )


def _index(name: str, name_of: object, count: int) -> int:
    return next(i for i in range(count) if name_of(i) == name)  # type: ignore[operator]


def observation(
    squares: Squares | None = None,
    message: str = "",
    carried: Sequence[int] = (),
    misc: Sequence[int] = (0, 0, 0),
    **stats: int,
) -> dict[str, np.ndarray]:
    """One observation.

    Args:
        squares: glyphs by (columns right, rows down) from the hero.
        message: the message line.
        carried: object glyphs.
        misc: in_yn_function, in_getlin, xwaitingforspace.
        stats: entries of blstats by NLE's names without NLE_BL_.
    """
    made = {key: np.zeros(nh.OBSERVATION_DESC[key]["shape"], nh.OBSERVATION_DESC[key]["dtype"]) for key in KEYS}
    for name, value in {**DEFAULT_STATS, **stats}.items():
        made["blstats"][getattr(nh, f"NLE_BL_{name}")] = value
    made["glyphs"][:] = nh.GLYPH_CMAP_OFF
    made["glyphs"][Y, X] = HERO
    for (dx, dy), glyph in (squares or {}).items():
        made["glyphs"][Y + dy, X + dx] = glyph
    text = message.encode()
    made["message"][: len(text)] = list(text)
    made["inv_glyphs"][:] = nh.NO_GLYPH
    made["inv_oclasses"][:] = nh.MAXOCLASSES
    for slot, glyph in enumerate(carried):
        made["inv_glyphs"][slot] = glyph
        made["inv_oclasses"][slot] = _class(glyph)
        made["inv_letters"][slot] = (list(range(ord("a"), ord("z") + 1)) + list(range(ord("A"), ord("Z") + 1)))[slot]
    made["misc"][:] = misc
    return made


def _class(glyph: int) -> int:
    if nh.glyph_is_body(glyph):
        return int(nh.FOOD_CLASS)
    return ord(nh.objclass(glyph - nh.GLYPH_OBJ_OFF).oc_class)


def words(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """The engine's words for a batch [N, ...]."""
    return np.asarray(_C.evaluate_conditions(*(np.ascontiguousarray(batch[key]) for key in KEYS)))


def lit(one: Mapping[str, np.ndarray], memory: _C.StairsMemory | None = None) -> set[str]:
    """The names of the conditions that hold for one observation, `memory` being what is known from earlier ones."""
    arrays = (np.ascontiguousarray(one[key])[None] for key in KEYS)
    row = _C.evaluate_conditions(*arrays, [] if memory is None else [memory])[0]
    return {name for i, name in enumerate(_C.condition_names()) if int(row[i // 64]) >> (i % 64) & 1}
