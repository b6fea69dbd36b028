"""The inline mode: actor and policy take turns in this process. Deterministic, and the oracle for every other mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.inference import make_infer
from polybeast_moe.runtime.policy_server import PolicyServer
from polybeast_moe.runtime.rollouts import Rollout
from polybeast_moe.runtime.saved_games import games_from_plain, games_to_plain
from polybeast_moe.snapshots.randomness import decode, encode


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
        keep = config.snapshots.replay_steps if config.env.clock != "real" else 0
        self._actor: _C.Actor | None = _C.Actor(self._region, 0, directory, first_episode, keep)
        self._boundary: dict[str, Any] | None = None  # where the rollouts under way began
        self._generator = torch.Generator().manual_seed(config.seed)
        infer = make_infer(policy, config, self._region.groups)
        self._server = PolicyServer(self._region, infer, self._generator, config.runtime.groups_per_batch)
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
        self._boundary = self._boundary or self._snapshot_state()
        while not interrupted():
            moved = self._actor.run_once()
            served = self._server.serve(self._policy_version)
            full = self._region.take_delivered(self._batch)
            if full:
                self._boundary = None
                return [self._rollouts[slot] for slot in full]
            if not moved and not served:
                raise RuntimeError("no free slot: rollouts were not given back")
        return None

    def state(self) -> dict[str, Any]:
        """Returns where games, recurrent states and the drawing of actions stood after the last whole batch.

        Rollouts under way are not in it: after a resume they are played again, to the same end.
        """
        return self._boundary or self._snapshot_state()

    def _snapshot_state(self) -> dict[str, Any]:
        assert self._actor is not None, "state after close"
        states = [self._region.states(group)[self._parity(group)] for group in range(self._region.groups)]
        return {
            "mode": "inline",
            "action_random_state": encode(self._generator.get_state().numpy()),
            "next_group": self._server.next_group,
            "games": games_to_plain(self._actor.saved_games()),
            "recurrent": [encode(state) for state in states],
        }

    def _parity(self, group: int) -> int:
        """Which of the two copies of a group's recurrent state counts."""
        return self._region.turn(group)[1] % 2

    def restore(self, state: Mapping[str, Any]) -> str:
        """Brings every game back to where it stood; the asynchronous mode's snapshots know of none."""
        assert self._actor is not None, "restore after close"
        if state.get("mode") != "inline":
            return super().restore(state)
        own = [self._region.states(group)[self._parity(group)] for group in range(self._region.groups)]
        games = games_from_plain(state["games"], (len(own), len(own[0])))
        recurrent = [decode(text, np.float32) for text in state["recurrent"]]
        generator = torch.from_numpy(decode(state["action_random_state"], np.uint8))
        if games is None or [len(values) for values in recurrent] != [values.size for values in own]:
            return "the games are others than before: all begin new episodes"
        self._generator.set_state(generator)
        self._server.next_group = int(state["next_group"]) % len(own)
        for values, restored in zip(own, recurrent, strict=True):
            values[:] = restored.reshape(values.shape)
        anew = self._actor.restore(games)
        return f"{anew} games could not be played on and begin new episodes" if anew else ""

    def close(self) -> None:
        """Ends every game and removes its files."""
        self._actor = None
