"""What a policy reads, made from raw observations of NLE: whoever holds those can run a trained policy.

Rollouts of a training run are filled in C++ (csrc/actor/group.cc); this makes the same of arrays, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from nle import nethack
from numpy.typing import NDArray

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.errors import UserError
from polybeast_moe.models import Observation

RAW_KEYS = ("glyphs", "blstats", "message", "inv_glyphs", "inv_letters", "inv_oclasses", "misc")
"""Keys of NLE that are read. `misc` is no default of NLE's and is made up for where it is missing."""

_ROWS, _COLUMNS = nethack.DUNGEON_SHAPE
_QUESTIONS = (b"eat", b"attack", b"direction?", b"pray")  # those that NLE leaves to the agent: nle.env.base

Raw = Mapping[str, NDArray[Any]]


def observe(
    raw: Raw,
    previous_action: NDArray[np.int64],
    env: EnvConfig,
    memories: Sequence[_C.StairsMemory] = (),
) -> Observation:
    """Makes N rows for a policy.

    Args:
        raw: NLE's arrays `[N, ...]` by `RAW_KEYS`.
        previous_action: [N]; the number of actions where there was none.
        env: says the crop's size, and whether map and inventory are stored.
        memories: what is remembered of each row's game, brought up to date here; without them the hero's stairs are
            only known where the message tells, which is less than actors know.

    Raises:
        UserError: a key is missing.
    """
    for key in RAW_KEYS[:-1]:
        if key not in raw:
            raise UserError(f"observation: {key!r} is missing; make the environment with observation_keys={RAW_KEYS}")
    misc = raw["misc"] if "misc" in raw else _misc(raw["message"])
    conditions = _C.evaluate_conditions(
        raw["glyphs"],
        raw["blstats"],
        raw["message"],
        raw["inv_glyphs"],
        raw["inv_oclasses"],
        raw["inv_letters"],
        misc,
        list(memories),
    )
    inventory = ("inv_glyphs", "inv_letters", "inv_oclasses")
    stored = (("glyphs",) if env.store_glyphs else ()) + (inventory if env.store_inventory else ())
    rest: dict[str, Any] = {key: torch.from_numpy(np.ascontiguousarray(raw[key])) for key in stored}
    return Observation(
        glyph_crop=torch.from_numpy(crop(raw["glyphs"], raw["blstats"], env.crop_size)),
        blstats=torch.from_numpy(np.ascontiguousarray(raw["blstats"])),
        conditions=torch.from_numpy(conditions.view(np.int64)),
        previous_action=torch.from_numpy(previous_action),
        message=torch.from_numpy(np.ascontiguousarray(raw["message"])),
        **rest,
    )


def crop(glyphs: NDArray[np.int16], blstats: NDArray[np.int64], side: int) -> NDArray[np.int16]:
    """Cuts squares of `side` around the hero: glyphs [N, 21, 79], blstats [N, 27] -> [N, side, side]."""
    half = side // 2
    padded = np.full((len(glyphs), _ROWS + 2 * half, _COLUMNS + 2 * half), nethack.NO_GLYPH, dtype=np.int16)
    padded[:, half : half + _ROWS, half : half + _COLUMNS] = glyphs
    columns, rows = blstats[:, :1] + np.arange(side), blstats[:, 1:2] + np.arange(side)  # [N, side]
    cut: NDArray[np.int16] = padded[np.arange(len(glyphs))[:, None, None], rows[:, :, None], columns[:, None]]
    return cut


def _misc(message: NDArray[np.uint8]) -> NDArray[np.int32]:
    """NLE's `misc` [N, 3] between steps, by the message [N, 256]: it tells whether a question is still open.

    Text prompts and --More-- have been passed by then, and of questions only some are left to the agent. NetHack ends
    an open one with a space and shows the answer behind it.
    """
    misc = np.zeros((len(message), 3), dtype=np.int32)
    for row, text in enumerate(bytes(one).rstrip(b"\0") for one in message):
        misc[row, 0] = text.endswith(b" ") and any(question in text for question in _QUESTIONS)
    return misc
