"""The engine's conditions against the reference on 50,000 steps of real games."""

from __future__ import annotations

import numpy as np
import pytest
import reference_conditions
from nle import nethack as nh
from observations import KEYS, words

from polybeast_moe import _C

STEPS = 50_000
CHUNK = 1_000
EPISODE_STEPS = 1_500
CHARACTERS = ("mon-hum-neu-mal", "val-dwa-law-fem", "tou-hum-neu-fem", "ran-elf-cha-mal", "arc-gno-neu-fem")
ACTIONS = [int(key) for key in nh.USEFUL_ACTIONS if key != nh.Command.HISTORY]
WALKS = [int(key) for key in (*nh.CompassDirection, *nh.CompassDirectionLonger, nh.MiscDirection.DOWN)]


def play(steps: int) -> dict[str, np.ndarray]:
    """Random walks mixed with random commands; wizard mode's level teleport brings half of the games down deep."""
    rng = np.random.default_rng(0)
    made = {
        key: np.empty((steps, *nh.OBSERVATION_DESC[key]["shape"]), nh.OBSERVATION_DESC[key]["dtype"]) for key in KEYS
    }
    step = game_number = 0
    while step < steps:
        deep = game_number % 2 == 1
        game = nh.Nethack(
            observation_keys=KEYS,
            playername=f"Agent-{CHARACTERS[game_number % len(CHARACTERS)]}",
            ttyrec=None,
            wizard=deep,
        )
        game.set_initial_seeds(game_number, game_number, False)
        observation, done = game.reset(), False
        observation, done = game.step(13)
        while observation[KEYS.index("misc")].any():  # the greeting, which is longer on a night of full or new moon
            observation, done = game.step(13)
        for key in f"\x16{rng.integers(2, 30)}\r" if deep else "":  # ^V: level teleport
            observation, done = game.step(ord(key))
        for _ in range(min(EPISODE_STEPS, steps - step)):
            if done:
                break
            for key, value in zip(KEYS, observation, strict=True):
                made[key][step] = value
            step += 1
            observation, done = game.step(next_key(observation[KEYS.index("misc")], rng))
        game.close()
        game_number += 1
    return made


def next_key(misc: np.ndarray, rng: np.random.Generator) -> int:
    if misc[2]:
        return 13
    if misc[1]:
        return 27
    return int(rng.choice(ACTIONS if rng.random() < 0.2 else WALKS))


@pytest.fixture(scope="module")
def played() -> dict[str, np.ndarray]:
    return play(STEPS)


def test_engine_agrees_with_reference_on_real_steps(played: dict[str, np.ndarray]) -> None:
    rows = words(played)
    differing: dict[str, int] = {}
    for start in range(0, STEPS, CHUNK):
        expected = reference_conditions.evaluate({key: value[start : start + CHUNK] for key, value in played.items()})
        for index, name in enumerate(_C.condition_names()):
            seen = (rows[start : start + CHUNK, index // 64] >> np.uint64(index % 64)) & np.uint64(1) == 1
            differing[name] = differing.get(name, 0) + int((seen != expected[name]).sum())
    assert {name: count for name, count in differing.items() if count} == {}


def test_the_play_is_worth_the_comparison(played: dict[str, np.ndarray]) -> None:
    """Turns pass, levels differ, and most conditions are seen both ways."""
    assert played["blstats"][:, nh.NLE_BL_TIME].max() > 300
    assert len(np.unique(played["blstats"][:, nh.NLE_BL_DEPTH])) >= 5
    bits = np.unpackbits(words(played).view(np.uint8), axis=1, bitorder="little")[:, : len(_C.condition_names())]
    share = bits.mean(axis=0)
    assert ((share > 0) & (share < 1)).mean() > 0.75  # stock games see the real clock: on some days fewer
