"""Scenes follow from raw observations by the rules that docs/evaluation.md states."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from polybeast_moe.envs import NetHackVectorEnv
from polybeast_moe.envs import scenes as module
from polybeast_moe.envs.scenes import SCENES, scenes

STONE, FLOOR, WALL, JACKAL, KITTEN, HERO = 2359, 2378, 2360, 10, 381 + 32, 327


def shown(**changes: int) -> dict[str, np.ndarray]:
    """A healthy hero at (40, 10) in a room of floor that walls close: nothing to do."""
    glyphs = np.full((1, 21, 79), STONE, dtype=np.int16)
    glyphs[0, 5:16, 30:51] = WALL
    glyphs[0, 6:15, 31:50] = FLOOR
    glyphs[0, 10, 40] = HERO
    blstats = np.zeros((1, 27), dtype=np.int64)
    blstats[0, [0, 1, 10, 11, 21]] = 40, 10, 14, 14, 1
    for name, value in changes.items():
        blstats[0, {"hp": 10, "hunger": 21, "condition": 25, "x": 0}[name]] = value
    return {"glyphs": glyphs, "blstats": blstats}


def put(raw: dict[str, np.ndarray], row: int, column: int, glyph: int) -> dict[str, np.ndarray]:
    raw["glyphs"][0, row, column] = glyph
    return raw


@pytest.mark.parametrize(
    ("raw", "wanted"),
    [
        (shown(), "general"),
        (shown(hp=5), "general"),
        (shown(hp=4), "survival"),
        (shown(hunger=0), "general"),
        (shown(hunger=2), "survival"),
        (shown(condition=8), "survival"),  # food poisoning
        (shown(condition=256), "general"),  # confused: a nuisance
        (put(shown(), 10, 42, JACKAL), "combat"),
        (put(shown(), 8, 38, JACKAL), "combat"),
        (put(shown(), 10, 43, JACKAL), "general"),
        (put(shown(), 10, 41, KITTEN), "general"),
        (put(shown(hp=4), 10, 41, JACKAL), "survival"),
        (put(shown(), 10, 50, 2371), "exploration"),  # a doorway: dark behind it
        (put(shown(), 15, 40, 2372), "exploration"),  # an open door
        (put(put(shown(), 10, 50, 2371), 10, 41, JACKAL), "combat"),
        (put(shown(x=35), 10, 50, 2371), "general"),  # too far
    ],
)
def test_rules(raw, wanted: str) -> None:
    assert SCENES[int(scenes(raw)[0])] == wanted


def test_the_edge_of_the_map_is_no_frontier() -> None:
    raw = shown()
    raw["glyphs"][:] = FLOOR
    assert SCENES[int(scenes(raw)[0])] == "general"


def test_rows_do_not_touch_each_other() -> None:
    several = [shown(), put(shown(), 10, 41, JACKAL), shown(hp=1), put(shown(), 10, 50, 2371)]
    together = {key: np.concatenate([raw[key] for raw in several]) for key in ("glyphs", "blstats")}
    assert scenes(together).tolist() == [3, 1, 0, 2]


def test_every_scene_comes_up_in_play() -> None:
    env = NetHackVectorEnv("NetHackScore-v0", 16, observation_keys=("glyphs", "blstats"), clock=1_600_000_000)
    raw, _ = env.reset(seed=1)
    generator = np.random.default_rng(0)
    counts = np.zeros(4)
    for _ in range(400):
        counts += np.bincount(scenes(raw), minlength=4)
        raw, *_ = env.step(generator.integers(23, size=16))
    env.close()
    assert (counts / counts.sum()).min() > 0.01


def test_nothing_goes_through_the_conditions_that_feed_the_router() -> None:
    imported = re.findall(r"^(?:from|import) (\S+)", Path(module.__file__).read_text(), re.MULTILINE)
    assert not [name for name in imported if name.startswith("polybeast_moe")]
