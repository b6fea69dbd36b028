"""The tasks of NLE and their options, with NLE's own defaults, as settings of the C++ engine."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polybeast_moe import _C
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.errors import UserError, nearest

TASKS: dict[str, str] = {
    "NetHack-v0": "NLE",
    "NetHackScore-v0": "NetHackScore",
    "NetHackStaircase-v0": "NetHackStaircase",
    "NetHackStaircasePet-v0": "NetHackStaircasePet",
    "NetHackOracle-v0": "NetHackOracle",
    "NetHackGold-v0": "NetHackGold",
    "NetHackEat-v0": "NetHackEat",
    "NetHackScout-v0": "NetHackScout",
    "NetHackChallenge-v0": "NetHackChallenge",
}
"""NLE's environment ids and the names of their classes."""

PENALTY_MODES = ("constant", "exp", "square", "linear", "always")


class EndStatus(enum.IntEnum):
    """How an episode stands: `StepStatus` of NLE and its tasks."""

    ABORTED = -1
    RUNNING = 0
    DEATH = 1
    TASK_SUCCESSFUL = 2


class InvalidOptionError(UserError, ValueError):
    """An argument of an environment has a value that it cannot have; the message names it and the choices."""


class InvalidTypeError(UserError, TypeError):
    """An argument of an environment is of the wrong type."""


@dataclass(frozen=True)
class TaskOptions:
    """Options of NLE's constructors that change what is played. None: the task's own default.

    Names and meanings are NLE's (`nle.env.base.NLE`, `nle.env.tasks`); `NetHackChallenge-v0` fixes `actions` and
    `wizard`, and alone reads `no_progress_timeout`; the plain `NetHack-v0` has no penalties.
    """

    character: str | None = None
    max_episode_steps: int | None = None
    actions: Sequence[int] | None = None
    options: Sequence[str] | None = None
    wizard: bool = False
    allow_all_yn_questions: bool | None = None
    allow_all_modes: bool | None = None
    spawn_monsters: bool = True
    fix_moon_phase: bool = False
    penalty_mode: str | None = None
    penalty_step: float | None = None
    penalty_time: float | None = None
    no_progress_timeout: int | None = None

    @classmethod
    def of(cls, task: str, given: Mapping[str, Any]) -> TaskOptions:
        """Checks what a user gave for `task`.

        Raises:
            InvalidOptionError: unknown or impossible task, option or value.
        """
        if task not in TASKS:
            raise InvalidOptionError(f"task: unknown task {task!r}{nearest(task, TASKS)}")
        for name in given:
            if name not in cls.__dataclass_fields__:
                raise InvalidOptionError(f"{task}: unknown option {name!r}{nearest(name, cls.__dataclass_fields__)}")
        options = cls(**given)
        options._check(task)
        return options

    def _check(self, task: str) -> None:
        refused = _REFUSED.get(task, ())
        for name in refused:
            if getattr(self, name) not in (None, False):
                raise InvalidOptionError(f"{task}: NLE's class takes no {name!r}")
        mode = self.penalty_mode
        if mode is not None and mode not in PENALTY_MODES:
            raise InvalidOptionError(f"{task}: unknown penalty_mode {mode!r}{nearest(str(mode), PENALTY_MODES)}")
        for name in ("max_episode_steps", "no_progress_timeout"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and int(value) == value > 0):
                raise InvalidOptionError(f"{task}: {name} must be a positive whole number, not {value!r}")
        for name in ("penalty_step", "penalty_time"):
            value = getattr(self, name)
            if value is not None and not _is_number(value):
                raise InvalidOptionError(f"{task}: {name} must be a number, not {value!r}")
        if self.actions is not None and not 0 < len(self.actions) <= 256:
            raise InvalidOptionError(f"{task}: actions must be 1 to 256 keys, not {len(self.actions)}")
        if isinstance(self.options, str):
            raise InvalidOptionError(f"{task}: options must be a list of NetHack options, not one string")
        for option in self.options or ():
            if "," in option:
                raise InvalidOptionError(f"{task}: one NetHack option an entry, without commas: {option!r}")

    def keys(self, task: str) -> tuple[int, ...]:
        """Returns the key that each action presses."""
        from nle import nethack
        from nle.env import base, tasks

        if self.actions is not None:
            return tuple(int(action) for action in self.actions)
        if task == "NetHackChallenge-v0":
            return tuple(int(action) for action in nethack.ACTIONS)
        return tuple(int(action) for action in (base.FULL_ACTIONS if task == "NetHack-v0" else tasks.TASK_ACTIONS))

    def nethack_options(self, task: str) -> str:
        """Returns NETHACKOPTIONS as `nle.nethack.Nethack` joins them, the player's name included."""
        from nle import nethack

        chosen = list(nethack.NETHACKOPTIONS if self.options is None else self.options)
        if task == "NetHackGold-v0" and self.options is None:
            chosen = ["pickup_types:$" if option.startswith("pickup_types") else option for option in chosen]
        character = self.character or _default_character(task)
        joined = [*chosen, f"name:Agent-{character}"]
        if character == "@":  # a random role draws its race, gender and alignment too
            joined += [
                f"{k}:random" for k in ("race", "gender", "align") if not any(o.startswith(k + ":") for o in chosen)
            ]
        if self.wizard:
            joined.append("playmode:debug")
        return ",".join(joined)

    def game_settings(self, task: str, clock: int | None, package: NlePackage) -> _C.GameSettings:
        """Returns what the engine makes a game of `task` from; `clock` None: the real one."""
        challenge = task == "NetHackChallenge-v0"
        return _C.GameSettings(
            library=str(package.library),
            data_directory=str(package.data),
            options=self.nethack_options(task),
            keys=list(self.keys(task)),
            task=TASKS[task],
            max_episode_steps=int(_or(self.max_episode_steps, 1_000_000 if challenge else 5000)),
            penalty_mode=_or(self.penalty_mode, "constant"),
            penalty_step=float(_or(self.penalty_step, -0.0 if challenge else -0.01)),
            penalty_time=float(_or(self.penalty_time, -0.0)),
            no_progress_timeout=int(_or(self.no_progress_timeout, 10_000)),
            allow_all_yn_questions=bool(_or(self.allow_all_yn_questions, challenge)),
            allow_all_modes=bool(_or(self.allow_all_modes, challenge)),
            spawn_monsters=bool(self.spawn_monsters),
            fix_moon_phase=bool(self.fix_moon_phase),
            clock=clock,
        )


_PENALTIES = ("penalty_mode", "penalty_step", "penalty_time")
_REFUSED: dict[str, tuple[str, ...]] = {
    task: ("no_progress_timeout",) for task in TASKS if task != "NetHackChallenge-v0"
} | {
    "NetHack-v0": (*_PENALTIES, "no_progress_timeout"),
    "NetHackChallenge-v0": ("actions", "wizard"),
}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value))


def _default_character(task: str) -> str:
    return "@" if task == "NetHackChallenge-v0" else "mon-hum-neu-mal"


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


_BASE_KEYS = (
    "glyphs",
    "chars",
    "colors",
    "specials",
    "blstats",
    "message",
    "inv_glyphs",
    "inv_strs",
    "inv_letters",
    "inv_oclasses",
    "screen_descriptions",
    "tty_chars",
    "tty_colors",
    "tty_cursor",
)


def chosen_keys(task: str, keys: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the keys to observe: those given, else NLE's defaults of the task.

    Raises:
        InvalidOptionError: a key is unknown, comes twice, or there is none.
    """
    if keys is None:
        if task == "NetHackChallenge-v0":
            return (*(key for key in _BASE_KEYS if key != "screen_descriptions"), "misc")
        return _BASE_KEYS
    if isinstance(keys, str):
        raise InvalidOptionError(f"observation_keys must be a list of keys, not the string {keys!r}")
    for key in keys:
        if key not in _C.OBSERVATION_KEYS:
            raise InvalidOptionError(f"observation_keys: unknown key {key!r}{nearest(key, _C.OBSERVATION_KEYS)}")
    if not keys or len(set(keys)) != len(keys):
        raise InvalidOptionError(f"observation_keys must be one or more different keys, not {list(keys)}")
    return tuple(keys)
