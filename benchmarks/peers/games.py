"""Stock NLE for the peers: one task, one reward, the views of a screen that a network reads, and a log of episodes."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import nle  # noqa: F401 - registers the tasks
import numpy as np
from gymnasium import spaces

from peers.job import Job

TASK = "NetHackScore-v0"
CHARACTER = "mon-hum-neu-mal"
REWARD_SCALE = 10.0  # the learner sees tanh(reward / 10), in every system
CROP, OUTSIDE = 9, 5976
ROWS, COLUMNS = 21, 79
X, Y, SCORE = 0, 1, 9  # in blstats

View = tuple[spaces.Space[Any], Callable[[dict[str, Any]], Any]]


class EpisodeLog:
    """Appends finished episodes to a file of this process's own: when, score, steps."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._pid, self._file = folder, 0, None

    def write(self, score: float, steps: int) -> None:
        """One episode has ended."""
        if self._pid != os.getpid():  # after a fork too
            self._folder.mkdir(parents=True, exist_ok=True)
            self._pid = os.getpid()
            self._file = (self._folder / f"{self._pid}.csv").open("a", buffering=1)
        assert self._file is not None
        self._file.write(f"{time.time():.3f},{score:g},{steps}\n")


def read_episodes(folder: Path, began: float) -> list[tuple[float, float, int]]:
    """(seconds, score, steps) of every episode, in the order of their ends."""
    found = []
    for file in folder.glob("*.csv"):
        text = file.read_text()
        for line in text[: text.rfind("\n") + 1].splitlines():
            at, score, steps = line.split(",")
            found.append((float(at) - began, float(score), int(steps)))
    return sorted(found)


class Crops:
    """The squares around each hero of N games: (glyphs [N, 21, 79], blstats [N, 27]) -> [N, 9, 9] int16, a copy."""

    def __init__(self, games: int) -> None:
        margin = CROP // 2
        self._padded = np.full((games, ROWS + 2 * margin, COLUMNS + 2 * margin), OUTSIDE, dtype=np.int16)
        self._map = self._padded[:, margin : margin + ROWS, margin : margin + COLUMNS]
        self._windows = np.lib.stride_tricks.sliding_window_view(self._padded, (CROP, CROP), axis=(1, 2))
        self._games = np.arange(games)

    def __call__(self, glyphs: Any, blstats: Any) -> Any:
        """As the class says."""
        self._map[...] = glyphs
        return self._windows[self._games, blstats[:, Y], blstats[:, X]]


CROP_SPACE = spaces.Box(0, OUTSIDE, (CROP, CROP), np.int16)
STATUS_SPACE = spaces.Box(-np.inf, np.inf, (27,), np.float32)


def views() -> dict[str, tuple[tuple[str, ...], View]]:
    """What can be seen, by name: the keys of NLE that it takes, its space, and how it is made."""
    crops = Crops(1)
    return {
        "crop": (
            ("glyphs", "blstats"),
            (CROP_SPACE, lambda seen: crops(seen["glyphs"][None], seen["blstats"][None])[0]),
        ),
        "blstats": (("blstats",), (STATUS_SPACE, lambda seen: seen["blstats"].astype(np.float32))),
        "glyphs": (
            ("glyphs",),
            (spaces.Box(0, OUTSIDE, (ROWS, COLUMNS), np.int16), lambda seen: seen["glyphs"].copy()),
        ),
        "message": (
            ("message",),
            (spaces.Box(0, 1, (256,), np.float32), lambda seen: seen["message"].astype(np.float32) / 255),
        ),
    }


class Game(gymnasium.Wrapper):  # type: ignore[type-arg]
    """One game of NLE that shows these views and logs its episodes.

    A step limit ends an episode as a death does (`terminated`) where `merge_ends`: Monobeast looks at no truncation.
    """

    def __init__(self, job: Job, names: Sequence[str], more: dict[str, Any] | None = None, *, merge_ends: bool = False):
        known = views() | (more or {})
        keys = {key for name in names for key in known[name][0]} | {"blstats"}
        env = gymnasium.make(
            TASK,
            observation_keys=tuple(sorted(keys)),
            character=CHARACTER,
            max_episode_steps=job.steps,
            disable_env_checker=True,
        )
        super().__init__(env)
        self._views = {name: known[name][1] for name in names}
        self.observation_space = spaces.Dict({name: space for name, (space, _) in self._views.items()})
        self._log, self._merge_ends = EpisodeLog(job.episodes), merge_ends
        self._score = self._steps = 0

    def reset(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins an episode."""
        seen, info = self.env.reset(**options)
        self._score, self._steps = int(seen["blstats"][SCORE]), 0
        return self._observe(seen), info

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Plays one step. The score of an episode is the last one while the hero lived."""
        seen, reward, terminated, truncated, _ = self.env.step(int(action))
        self._steps += 1
        if not terminated:
            self._score = int(seen["blstats"][SCORE])
        if terminated or truncated:
            self._log.write(self._score, self._steps)
        if self._merge_ends:
            terminated, truncated = terminated or truncated, False
        return self._observe(seen), math.tanh(float(reward) / REWARD_SCALE), bool(terminated), bool(truncated), {}

    def _observe(self, seen: dict[str, Any]) -> dict[str, Any]:
        return {name: make(seen) for name, (_, make) in self._views.items()}
