"""What is made of raw arrays is what actors write into rollouts, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polybeast_moe import _C
from polybeast_moe.envs import NetHackVectorEnv
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.observe import RAW_KEYS, crop, observe
from polybeast_moe.runtime.rollouts import Rollout, rollout_layout

GAMES, STEPS, SEED = 3, 200, 5


def by_actors(config, package, directory, actions):
    """Rows of a rollout that plays those actions: observations of every step, games seeded as `reset(seed=)` does."""
    layout = rollout_layout(config, state_size=0)
    region = _C.Region(layout, 1)
    rollout = Rollout(region, 0)
    library = _C.LibraryFile(str(package.library))
    group = _C.Group(library, game_settings(config.env, package), directory, layout, run_seed=SEED, first_game=0)
    group.open(region, 0)
    rollout["action"].copy_(torch.from_numpy(actions))
    for t in range(STEPS):
        group.step(region, 0, t)
    return rollout


@pytest.mark.parametrize("character", ["mon-hum-neu-mal", "val-hum-neu-fem"])
def test_it_equals_what_actors_write(make_config, nle_package, tmp_path, character: str) -> None:
    config = make_config(
        f"env.character={character}",
        f"runtime.unroll={STEPS}",
        f"env.max_episode_steps={STEPS + 1}",
        "env.store_glyphs=true",
        "env.store_inventory=true",
        "env.crop_size=11",
    )
    actions = np.random.default_rng(0).integers(len(ACTIONS), size=(STEPS, GAMES))
    rollout = by_actors(config, nle_package, tmp_path / "games", actions)
    env = NetHackVectorEnv(
        "NetHackScore-v0",
        GAMES,
        observation_keys=RAW_KEYS,
        clock=config.env.clock,
        character=character,
        max_episode_steps=STEPS + 1,
        autoreset_mode="SameStep",
    )
    raw, _ = env.reset(seed=SEED)
    previous = np.full(GAMES, len(ACTIONS))
    compared, stairs = 0, [_C.StairsMemory() for _ in range(GAMES)]
    for t in range(STEPS):
        ours, theirs = observe(raw, previous, config.env, stairs), rollout.observation(t)
        for name, value in theirs._asdict().items():
            if name == "graph_plan":  # nobody observes it
                continue
            assert value.dtype == getattr(ours, name).dtype, name
            assert torch.equal(value, getattr(ours, name)), f"{name} at step {t}"
            compared += 1
        raw, _, terminated, truncated, _ = env.step(actions[t])
        previous = np.where(terminated | truncated, len(ACTIONS), actions[t])
        for game in np.flatnonzero(terminated | truncated):
            stairs[game].forget()
    assert compared == STEPS * 9
    env.close()


def test_what_is_not_stored_is_not_there(make_config) -> None:
    env = NetHackVectorEnv("NetHackScore-v0", 1, observation_keys=RAW_KEYS)
    raw, _ = env.reset(seed=1)
    row = observe(raw, np.array([0]), make_config().env)
    env.close()
    assert row.glyphs is None
    assert row.inv_letters is None


def test_the_crop_shows_nothing_beyond_the_map() -> None:
    glyphs = np.arange(21 * 79, dtype=np.int16).reshape(1, 21, 79)
    blstats = np.zeros((1, 27), dtype=np.int64)
    blstats[0, :2] = 78, 0  # the upper right corner: x, y
    cut = crop(glyphs, blstats, 5)[0]
    assert (cut[:2] == 5976).all()
    assert (cut[:, 3:] == 5976).all()
    assert cut[2:, :3].tolist() == glyphs[0, :3, 76:].tolist()


def test_without_misc_the_message_tells(make_config) -> None:
    """NLE's default keys do not have it. Over real play the conditions are the same."""
    env = NetHackVectorEnv(
        "NetHackScore-v0", 8, observation_keys=RAW_KEYS, clock=1_600_000_000, autoreset_mode="SameStep"
    )
    raw, _ = env.reset(seed=3)
    generator = np.random.default_rng(1)
    config, prompts = make_config().env, 0
    for _ in range(1000):
        poorer = {key: value for key, value in raw.items() if key != "misc"}
        previous = np.zeros(8, dtype=np.int64)
        assert torch.equal(observe(raw, previous, config).conditions, observe(poorer, previous, config).conditions)
        prompts += int(raw["misc"][:, 0].sum())
        raw, *_ = env.step(generator.integers(len(ACTIONS), size=8))
    env.close()
    assert prompts > 50


def test_a_missing_key_is_named(make_config) -> None:
    with pytest.raises(UserError, match="'inv_glyphs' is missing"):
        observe({"glyphs": 0, "blstats": 0, "message": 0}, np.zeros(1, dtype=np.int64), make_config().env)
