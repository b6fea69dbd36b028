"""Settings of the C++ engine from the configuration: NLE's options, keys and files."""

from __future__ import annotations

from nle import nethack
from nle.env.tasks import TASK_ACTIONS

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.nle_package import NlePackage

ACTIONS: tuple[int, ...] = tuple(int(action) for action in TASK_ACTIONS)
"""The key that each action of the NetHackScore task presses (`nle.env.tasks.TASK_ACTIONS`)."""

ACTION_NAMES: tuple[str, ...] = tuple(action.name for action in TASK_ACTIONS)


def nethack_options(character: str) -> str:
    """Returns NLE's default NETHACKOPTIONS with the player's name, as `nle.nethack.Nethack` joins them."""
    options = [*nethack.NETHACKOPTIONS, f"name:Agent-{character}"]
    if character == "@":  # a random role draws its race, gender and alignment too
        options += [f"{key}:random" for key in ("race", "gender", "align")]
    return ",".join(options)


def game_settings(env: EnvConfig, package: NlePackage) -> _C.GameSettings:
    """Returns what a `_C.Game` of this environment is made of."""
    return _C.GameSettings(
        library=str(package.library),
        data_directory=str(package.data),
        options=nethack_options(env.character),
        keys=list(ACTIONS),
        max_episode_steps=env.max_episode_steps,
        penalty_step=env.penalty_step,
        penalty_time=env.penalty_time,
        clock=None if env.clock == "real" else env.clock,
    )
