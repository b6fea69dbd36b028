"""The inline mode: actor and policy take turns in this process. Deterministic, and the oracle for every other mode."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import game_settings
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.policy_server import PolicyServer
from polybeast_moe.runtime.rollouts import ROUTINGS, Rollout, rollout_layout


class InlineRuntime:
    """Steps every group of games with the policy and hands out full rollouts.

    There are as many slots as the learner takes at once, so that every group waits while it learns: a rollout's actions
    are all chosen by the weights that it trains. Time spent is added up in `engine_seconds` and `inference_seconds`.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        package: NlePackage,
        directory: Path,
        *,
        first_episode: int = 0,
    ) -> None:
        """Makes games under `directory`; episodes are numbered from `first_episode` on, so that none is replayed."""
        self._slots = config.learner.slots_per_batch
        self._region = _C.Region(
            rollout_layout(config, policy.initial_state(1).shape[1]),
            slots=self._slots,
            groups_per_actor=config.runtime.groups,
            run_seed=config.seed,
            game=game_settings(config.env, package),
        )
        self._actor: _C.Actor | None = _C.Actor(self._region, 0, directory, first_episode)
        self.generator = torch.Generator().manual_seed(config.seed)
        self._server = PolicyServer(self._region, policy, self.generator)
        self._rollouts = [Rollout(self._region, slot) for slot in range(self._slots)]
        self._policy_version = 0
        self.engine_seconds = 0.0
        self.inference_seconds = 0.0

    def set_control(self, *, phase: int, routing: str, temperature: float, policy_version: int) -> None:
        """Tells the next step inferred what to use."""
        self._region.set_control(phase=phase, routing=ROUTINGS.index(routing), temperature=temperature)
        self._policy_version = policy_version

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """Plays until a whole batch of rollouts is full and returns it; None when interrupted before."""
        assert self._actor is not None, "collect after close"
        while not interrupted():
            began = time.perf_counter()
            moved = self._actor.run_once()
            stepped = time.perf_counter()
            served = self._server.serve(self._region.groups, self._policy_version)
            self.engine_seconds += stepped - began
            self.inference_seconds += time.perf_counter() - stepped
            full = self._region.take_delivered(self._slots)
            if full:
                return [self._rollouts[slot] for slot in full]
            if not moved and not served:
                raise RuntimeError("no free slot: rollouts were not given back")
        return None

    def give_back(self, rollouts: list[Rollout]) -> None:
        """Returns slots that the learner is done with."""
        for rollout in rollouts:
            self._region.give_back(rollout.slot)

    @property
    def fatal_games(self) -> int:
        """Games that NetHack itself gave up, since the start."""
        return int(self._region.fatal_games(0)[0])

    def close(self) -> None:
        """Ends every game and removes its files."""
        self._actor = None
