"""Games that play given episodes to their ends, one after the other, and idle when there are no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nle import nethack
from numpy.typing import NDArray

from polybeast_moe import _C
from polybeast_moe.config import EnvConfig
from polybeast_moe.envs.engine import ACTIONS, game_settings
from polybeast_moe.envs.episode_record import GAME_FIGURES, EpisodeRecord
from polybeast_moe.envs.nle_package import check_nle
from polybeast_moe.envs.workers import Inline
from polybeast_moe.evaluation.draws import episode_seeds
from polybeast_moe.evaluation.endings import ALIVE
from polybeast_moe.evaluation.observe import RAW_KEYS


@dataclass(frozen=True)
class GameRows:
    """What the games that are under way show: N rows, copies."""

    game: NDArray[np.int64]
    """[N]: which of the table."""
    episode: NDArray[np.int64]
    """[N]: number in the whole evaluation."""
    step: NDArray[np.int64]
    """[N]: steps of the episode so far."""
    previous_action: NDArray[np.int64]
    """[N]: the number of actions at an episode's first step."""
    raw: dict[str, NDArray[Any]]
    """NLE's arrays, [N, ...] each, by `RAW_KEYS`."""


class GameTable:
    """Games side by side in this process; each takes the next of `episodes` when its own has ended.

    Which episodes are played is settled beforehand and each is played to its end, so that short ones do not count too
    often.
    """

    def __init__(self, env: EnvConfig, seed: int, episodes: Sequence[int], games: int) -> None:
        """Plays the episodes of those numbers of the evaluation `seed`, at most `games` at a time."""
        games = min(games, len(episodes))
        block = _C.GameBlock(game_settings(env, check_nle()), games, 0, list(RAW_KEYS), False)
        self._fields = block.fields()
        self._stepper = Inline(block, games)
        self._seed = seed
        self._waiting = list(reversed(episodes))
        self._episode = np.full(games, -1, dtype=np.int64)
        self._step = np.zeros(games, dtype=np.int64)
        self._previous_action = np.zeros(games, dtype=np.int64)
        self._gold = np.zeros((games, 2), dtype=np.int64)  # at the start, and when last seen alive
        self.records: dict[int, EpisodeRecord] = {}
        """What became of the episodes that have ended, by number."""

    def begin(self) -> None:
        """Starts the first episodes."""
        self._start(np.arange(len(self._episode)))

    def rows(self) -> GameRows | None:
        """Returns what the games show that are under way; None when every episode has ended."""
        game = np.flatnonzero(self._episode >= 0)
        if not len(game):
            return None
        raw = {key: self._fields[key][game] for key in RAW_KEYS}
        return GameRows(game, self._episode[game], self._step[game], self._previous_action[game], raw)

    def play(self, rows: GameRows, actions: NDArray[np.int64]) -> None:
        """Plays an action [N] in the game of each row; those that end begin their next episode."""
        fields, games = self._fields, rows.game
        fields["todo"].fill(_C.TODO_NOTHING)
        fields["todo"][games] = _C.TODO_STEP
        fields["action"][games] = actions
        self._stepper.run()
        self._step[games] += 1
        self._previous_action[games] = actions
        ended = (fields["terminated"] | fields["truncated"])[games].astype(np.bool_)
        alive = games[~ended | (fields["record_how_done"][games] == ALIVE)]
        self._gold[alive, 1] = fields["blstats"][alive, nethack.NLE_BL_GOLD]
        for game in games[ended].tolist():
            self._keep_record(game)
        if ended.any():
            self._start(games[ended])

    def close(self) -> None:
        """Ends the games and removes their files."""
        self._stepper.close()

    def _start(self, rows: NDArray[np.int64]) -> None:
        fields = self._fields
        self._episode[rows] = -1
        starting = rows[: len(self._waiting)]
        fields["todo"].fill(_C.TODO_NOTHING)
        fields["frozen_steps"][starting] = 0
        for game in starting.tolist():
            self._episode[game] = self._waiting.pop()
            fields["seed_core"][game], fields["seed_disp"][game] = episode_seeds(self._seed, int(self._episode[game]))
            fields["todo"][game] = _C.TODO_RESET
        self._stepper.run()
        self._step[starting] = 0
        self._previous_action[starting] = len(ACTIONS)
        self._gold[starting] = fields["blstats"][starting, nethack.NLE_BL_GOLD][:, None]

    def _keep_record(self, game: int) -> None:
        record: EpisodeRecord = {name: self._fields["record_" + name][game].item() for name in GAME_FIGURES}
        begun, last = self._gold[game].tolist()
        record |= {name: int(self._fields[name][game]) for name in ("seed_core", "seed_disp")}
        record["death"] = self._fields["record_death"][game].item().decode("latin-1")
        self.records[int(self._episode[game])] = {**record, "gold": last - begun}
