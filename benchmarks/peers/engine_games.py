"""This project's engine in place of stock NLE, in the shapes that the peers' loops take."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from peers import old_gymnasium
from peers.games import CHARACTER, CROP_SPACE, REWARD_SCALE, STATUS_SPACE, TASK, Crops, EpisodeLog
from peers.job import Job

old_gymnasium.mend()

from polybeast_moe.envs import NetHackVectorEnv  # noqa: E402 - after mending

SPACE = spaces.Dict({"crop": CROP_SPACE, "blstats": STATUS_SPACE})


class EngineGames:
    """Games of one process, reset within the step: after an end a step shows the next episode's start."""

    def __init__(self, job: Job, games: int) -> None:
        self.env = NetHackVectorEnv(
            TASK,
            games,
            observation_keys=("glyphs", "blstats"),
            autoreset_mode="SameStep",
            character=CHARACTER,
            max_episode_steps=job.steps,
        )
        self._crops, self._log = Crops(games), EpisodeLog(job.episodes)
        self.actions = spaces.Discrete(int(self.env.single_action_space.n))

    def reset(self) -> dict[str, Any]:
        """[N] views."""
        return self._observe(self.env.reset()[0])

    def step(self, actions: Any) -> tuple[dict[str, Any], Any, Any, Any]:
        """[N] views, rewards, terminations and truncations; NLE calls a step limit a termination, and so do we here."""
        seen, rewards, terminated, truncated, info = self.env.step(np.asarray(actions))
        if (terminated | truncated).any():
            record = info["final_info"]["episode_record"]
            for game in np.flatnonzero(terminated | truncated):
                self._log.write(record["score"][game], record["length"][game])
        return self._observe(seen), np.tanh(rewards / REWARD_SCALE), terminated, truncated

    def _observe(self, seen: dict[str, Any]) -> dict[str, Any]:
        return {
            "crop": self._crops(seen["glyphs"], seen["blstats"]),
            "blstats": seen["blstats"].astype(np.float32),
        }


class EngineGame(gymnasium.Env):  # type: ignore[type-arg]
    """One game, for loops that step games one by one. `reset` after an end shows the episode that has begun already."""

    def __init__(self, job: Job, *, merge_ends: bool = False) -> None:
        self._games = EngineGames(job, 1)
        self._merge_ends = merge_ends
        self.observation_space, self.action_space = SPACE, self._games.actions
        self._next: dict[str, Any] | None = None

    def reset(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Begins the first episode; later ones have begun."""
        seen = self._next or {name: value[0] for name, value in self._games.reset().items()}
        return seen, {}

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Plays one step."""
        views, rewards, terminated, truncated = self._games.step([int(action)])
        self._next = {name: value[0] for name, value in views.items()}
        ended = bool(terminated[0] or truncated[0]) if self._merge_ends else bool(terminated[0])
        return self._next, float(rewards[0]), ended, bool(truncated[0]) and not self._merge_ends, {}


class ManyEngineGames(gymnasium.Env):  # type: ignore[type-arg]
    """Sample Factory's multi-agent environment: every game is an agent, and ends alone."""

    is_multiagent = True

    def __init__(self, job: Job, games: int) -> None:
        self._games, self.num_agents = EngineGames(job, games), games
        self.observation_space, self.action_space = SPACE, self._games.actions

    def reset(self, **_: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Begins every episode."""
        return self._listed(self._games.reset()), [{} for _ in range(self.num_agents)]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, Any]:
        """Plays one step of each game."""
        views, rewards, terminated, truncated = self._games.step([int(np.asarray(a).item()) for a in actions])
        infos = [{} for _ in range(self.num_agents)]
        return self._listed(views), rewards.tolist(), terminated.tolist(), truncated.tolist(), infos

    def _listed(self, views: dict[str, Any]) -> list[dict[str, Any]]:
        return [{name: value[i] for name, value in views.items()} for i in range(self.num_agents)]
