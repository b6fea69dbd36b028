"""Which NetHack is played."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, field_validator

from polybeast_moe.config.base import Section

CHARACTER_ROLES = ["arc", "bar", "cav", "hea", "kni", "mon", "pri", "rog", "ran", "sam", "tou", "val", "wiz"]
CHARACTER_WORDS = {
    "race": ["hum", "elf", "dwa", "gno", "orc"],
    "alignment": ["law", "neu", "cha"],
    "gender": ["mal", "fem"],
}
"""NetHack 3.6's abbreviations (role.c), as NLE's `character` takes them: mon-hum-neu-mal."""


class EnvConfig(Section):
    """Which NetHack is played. Options are NLE's own (`nle.env.base.NLE`, `nle.env.tasks`)."""

    task: Literal["NetHackScore-v0"] = "NetHackScore-v0"
    character: str = "mon-hum-neu-mal"
    max_episode_steps: PositiveInt = 5000
    clock: int | Literal["real"] = 1_600_000_000
    penalty_step: float = -0.01
    penalty_time: float = 0.0
    crop_size: int = Field(9, ge=3, le=21, description="side of the egocentric glyph crop, odd, in map squares")
    store_glyphs: bool = Field(False, description="keep the whole 21 x 79 glyph map in rollouts beside the crop")
    store_inventory: bool = Field(False, description="keep the inventory's glyphs, letters and classes in rollouts")

    @field_validator("character")
    @classmethod
    def _known_character(cls, value: str) -> str:
        role, *rest = value.split("-")
        kinds = [{kind for kind, words in CHARACTER_WORDS.items() if word in words} for word in rest]
        known = value == "@" or role in CHARACTER_ROLES
        if not known or not all(kinds) or len(set().union(*kinds)) != len(rest):
            raise ValueError(
                f"{value!r} is no character: @ (random), or a role ({' '.join(CHARACTER_ROLES)}) and, after hyphens, "
                f"at most one each of {', '.join(' '.join(words) for words in CHARACTER_WORDS.values())}"
            )
        return value

    @field_validator("crop_size")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the hero stands in the middle")
        return value
