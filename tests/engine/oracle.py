"""Plays the engine and `nle.env.tasks.NetHackScore` side by side and compares every step; run by test_oracle.py.

Usage: oracle.py SEED STEPS MAX_EPISODE_STEPS CHARACTER. Prints the steps and episodes compared.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
from nle.env.tasks import NetHackScore

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.nle_package import check_nle

INVENTORY = ("inv_glyphs", "inv_letters", "inv_oclasses")
KEYS = ("glyphs", "blstats", "message", *INVENTORY, "misc", "internal", "program_state")


def check(step: int, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> None:
    for key in KEYS:
        assert np.array_equal(ours[key], theirs[key]), f"step {step}: {key} differs"


def main(seed: int, steps: int, max_episode_steps: int, character: str) -> None:
    warnings.simplefilter("ignore")
    env = EnvConfig(character=character, max_episode_steps=max_episode_steps)
    package = check_nle()
    oracle = NetHackScore(observation_keys=KEYS, character=character, max_episode_steps=max_episode_steps)
    rng = np.random.default_rng(seed)
    episodes = 0
    with tempfile.TemporaryDirectory() as directory:
        game = _C.Game(_C.LibraryFile(str(package.library)), game_settings(env, package), Path(directory) / "game")
        ours = game.observation()
        running = False
        for step in range(steps):
            if not running:
                core, disp = _C.episode_seeds(seed, 0, episodes)
                oracle.unwrapped.seed(core, disp, reseed=False)
                theirs, _ = oracle.reset()
                game.reset(core, disp)
                check(step, ours, theirs)
            action = int(rng.integers(len(ACTIONS)))
            theirs, their_reward, their_end, _, info = oracle.step(action)
            reward, terminated, truncated = game.step(action)
            assert reward == their_reward, f"step {step}: reward {reward} instead of {their_reward}"
            assert (terminated or truncated) == their_end, f"step {step}: end {terminated, truncated}"
            running = not their_end
            if their_end:
                episodes += 1
                assert truncated == (info["end_status"] == oracle.StepStatus.ABORTED)
            if not truncated:  # at the step limit NLE has played its quit into the same buffers
                check(step, ours, theirs)
    oracle.close()
    print(steps, episodes)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
