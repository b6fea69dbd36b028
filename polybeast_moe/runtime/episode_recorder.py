"""Replays of a training run's best episodes, put together from the rollouts that the learner consumes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.engine import task_options
from polybeast_moe.envs.episode_record import GAME_FIGURES, EpisodeRecord
from polybeast_moe.envs.replay import BestReplays, Replay, given_options
from polybeast_moe.runtime.rollouts import Rollout

_FATAL = -2  # how_done of a game that NetHack gave up: nothing to watch
_RECORD = (*GAME_FIGURES, "death")


class EpisodeRecorder:
    """Remembers the actions of every running episode, one byte a step, and keeps the best episodes as replays.

    Rollouts must come in the order in which they were delivered; what a dead actor had begun is forgotten when its game
    starts anew. Episodes whose beginning it has not seen (a resumed run goes on in their middle) are left out. Under
    the real clock nothing is kept: such episodes cannot be played again.
    """

    def __init__(self, env: EnvConfig, directory: Path, keep: int, log: Callable[[str], None]) -> None:
        """Keeps the `keep` best in `directory`; `log` tells of one that cannot be written."""
        self._env = env
        self._options = given_options(task_options(env))
        self._keep = keep if env.clock != "real" else 0
        self._best = BestReplays(directory, keep)
        self._log = log
        self._actions: dict[int, bytearray] = {}

    def add(self, rollouts: Sequence[Rollout]) -> None:
        """Takes in rollouts whose slots have not been given back."""
        if self._keep:
            for rollout in rollouts:
                self._add(rollout)

    def _add(self, rollout: Rollout) -> None:
        actions = rollout["action"].numpy().astype(np.uint8)
        first_game = int(rollout["first_game"][0])
        begun = [0] * actions.shape[1]
        for game in rollout["first"][0].nonzero().flatten().tolist():
            self._actions[first_game + game] = bytearray()
        count = int(rollout["record_count"][0])
        ends = zip(rollout["record_step"][:count].tolist(), rollout["record_game"][:count].tolist(), strict=True)
        for (step, game), record in zip(ends, rollout.episodes(), strict=True):
            played = self._actions.pop(first_game + game, None)
            if played is not None and record["how_done"] != _FATAL and self._best.wants(int(record["score"])):
                self._save(bytes(played + actions[begun[game] : step + 1, game].tobytes()), record)
            self._actions[first_game + game] = bytearray()
            begun[game] = step + 1
        for game, start in enumerate(begun):
            if first_game + game in self._actions:
                self._actions[first_game + game] += actions[start:, game].tobytes()

    def _save(self, actions: bytes, record: EpisodeRecord) -> None:
        replay = Replay(
            self._env.task,
            self._options,
            (int(record["seed_core"]), int(record["seed_disp"]), None),
            int(self._env.clock),
            np.frombuffer(actions, dtype=np.uint8),
            record={name: record[name] for name in _RECORD},
        )
        try:
            self._best.add(replay)
        except OSError as error:
            self._log(f"no replay of an episode of score {record['score']}: {error}")
