"""Settings of the C++ engine from the configuration: NLE's options, keys and files."""

from __future__ import annotations

from nle.env.tasks import TASK_ACTIONS

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.envs.tasks import TaskOptions

ACTIONS: tuple[int, ...] = tuple(int(action) for action in TASK_ACTIONS)
"""The key that each action of the NetHackScore task presses (`nle.env.tasks.TASK_ACTIONS`)."""

ACTION_NAMES: tuple[str, ...] = tuple(action.name for action in TASK_ACTIONS)
"""NLE's, which calls a step and a run in one direction alike."""

ACTION_LABELS: tuple[str, ...] = tuple(
    f"run {name}" if name in ACTION_NAMES[:index] else name for index, name in enumerate(ACTION_NAMES)
)
"""A name of its own for each action: steps come before runs."""


def task_options(env: EnvConfig) -> TaskOptions:
    """Returns NLE's options of this environment."""
    return TaskOptions(
        character=env.character,
        max_episode_steps=env.max_episode_steps,
        penalty_step=env.penalty_step,
        penalty_time=env.penalty_time,
    )


def game_settings(env: EnvConfig, package: NlePackage) -> _C.GameSettings:
    """Returns what a `_C.Game` of this environment is made of."""
    return task_options(env).game_settings(env.task, None if env.clock == "real" else env.clock, package)
