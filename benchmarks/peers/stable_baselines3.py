"""Stable-Baselines3's PPO: one process that plays, infers and learns in turn; games in worker processes or in its own.

Settings: `games`, `subprocesses` (a process a game), `torch_threads`, and PPO's own arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from peers.games import Game
from peers.job import Job, read_job
from peers.meter import Meter
from peers.network import HIDDEN, SharedNetwork, SharedTrunk, size

SHARED = ("crop", "blstats")
OWN = ("glyphs", "blstats", "message")
RUNNER = ("games", "subprocesses", "torch_threads")
DEFAULT_GAMES = 8  # of its own Atari settings


class SharedFeatures(BaseFeaturesExtractor):
    """The shared trunk; the heads that PPO puts on it are single linear layers, as the shared network's."""

    def __init__(self, observation_space: spaces.Space[Any]) -> None:
        super().__init__(observation_space, HIDDEN)
        self.trunk = SharedTrunk()

    def forward(self, seen: dict[str, torch.Tensor]) -> torch.Tensor:
        """[N, 256]."""
        return self.trunk(seen["crop"], seen["blstats"])


class EngineVecEnv(VecEnv):
    """This project's engine behind Stable-Baselines3's vector interface."""

    def __init__(self, job: Job, games: int) -> None:
        from peers.engine_games import SPACE, EngineGames

        self._games = EngineGames(job, games)
        self._actions: Any = None
        super().__init__(games, SPACE, self._games.actions)

    def reset(self) -> dict[str, Any]:
        """[N] views."""
        return self._games.reset()

    def step_async(self, actions: Any) -> None:
        """Keeps the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Plays them."""
        views, rewards, terminated, truncated = self._games.step(self._actions)
        return views, rewards.astype(np.float32), terminated | truncated, [{} for _ in range(self.num_envs)]

    def close(self) -> None:
        """Ends the games."""
        self._games.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:  # noqa: ARG002
        """Nothing is asked of single games but how they are drawn."""
        return [None] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not offered."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not offered."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:  # noqa: ARG002
        """They are not."""
        return [False] * self.num_envs


def games_of(job: Job) -> VecEnv:
    """The games that a job asks for."""
    count = job.settings.get("games", DEFAULT_GAMES)
    if job.engine == "ours":
        return EngineVecEnv(job, count)
    names = SHARED if job.network == "shared" else OWN
    makers = [lambda: Game(job, names)] * count
    return SubprocVecEnv(makers, start_method="fork") if job.settings.get("subprocesses") else DummyVecEnv(makers)


def alive(workers: Sequence[Any]) -> list[int]:
    """The processes of workers that run."""
    return [worker.pid for worker in workers if worker.is_alive()]


def main() -> None:
    job = read_job()
    torch.manual_seed(job.seed)
    torch.set_num_threads(job.settings.get("torch_threads", torch.get_num_threads()))
    env = games_of(job)
    given = {name: value for name, value in job.settings.items() if name not in RUNNER}
    if job.network == "shared":
        given["policy_kwargs"] = {"features_extractor_class": SharedFeatures, "net_arch": []}
    model = PPO("MultiInputPolicy", env, seed=job.seed, device="cpu", **given)
    if job.network == "shared":
        assert size(model.policy) == size(SharedNetwork(int(env.action_space.n)))
    workers = getattr(env, "processes", [])
    meter = Meter(job, environments=env.num_envs, parameters=size(model.policy), victims=lambda: alive(workers))
    train = model.train

    def train_and_count() -> None:
        train()
        meter.learnt(model.n_steps * env.num_envs)

    model.train = train_and_count
    meter.start()
    model.learn(10**12)


if __name__ == "__main__":
    main()
