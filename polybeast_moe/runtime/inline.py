"""The inline mode: actor and policy take turns in this process. Deterministic, and the oracle for every other mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.policy_server import PolicyServer
from polybeast_moe.runtime.rollouts import Rollout


class InlineRuntime(Runtime):
    """Steps every group of games with the policy and hands out full rollouts.

    There are as many slots as the learner takes at once, so that every group waits while it learns: a rollout's actions
    are all chosen by the weights that it trains.
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
        super().__init__(config, policy, package, slots=config.learner.slots_per_batch, actors=1)
        self._actor: _C.Actor | None = _C.Actor(self._region, 0, directory, first_episode)
        self._generator = torch.Generator().manual_seed(config.seed)
        self._server = PolicyServer(self._region, policy, self._generator, config.runtime.groups_per_batch)
        self._policy_version = 0

    def _publish(self, policy_version: int) -> None:
        self._policy_version = policy_version

    def start(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Begins the first games."""
        assert self._actor is not None, "start after close"
        if not interrupted():
            self._actor.run_once()

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """Plays until a whole batch of rollouts is full and returns it; None when interrupted before."""
        assert self._actor is not None, "collect after close"
        while not interrupted():
            moved = self._actor.run_once()
            served = self._server.serve(self._policy_version)
            full = self._region.take_delivered(self._batch)
            if full:
                return [self._rollouts[slot] for slot in full]
            if not moved and not served:
                raise RuntimeError("no free slot: rollouts were not given back")
        return None

    def state(self) -> dict[str, Any]:
        """Returns the random state that actions are drawn from."""
        return {"action_random_state": self._generator.get_state().numpy().tobytes().hex()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on drawing actions where `state` was taken; a snapshot of the asynchronous mode has no such state."""
        if "action_random_state" in state:
            raw = bytearray.fromhex(state["action_random_state"])
            self._generator.set_state(torch.frombuffer(raw, dtype=torch.uint8))

    def close(self) -> None:
        """Ends every game and removes its files."""
        self._actor = None
