"""The asynchronous mode: actors and policy worker in processes of their own, joined by the shared region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import game_settings
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.rollouts import ROUTINGS, Rollout, rollout_layout
from polybeast_moe.runtime.supervisor import Supervisor
from polybeast_moe.runtime.weights import SharedWeights

_LONGEST_SLEEP_MS = 100  # between looks at the children


class AsynchronousRuntime:
    """Hands out full rollouts as actors deliver them. The faces of this and `InlineRuntime` are the same.

    There is one slot for every group to fill and `learner.slots_per_batch` that wait: when those are full, groups
    stand still, which bounds how old a rollout's policy can be.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: Policy,
        package: NlePackage,
        directory: Path,
        *,
        first_episode: int = 0,
        log_path: Path,
        log: Callable[[str], None],
    ) -> None:
        """Starts every process. Children write to `log_path`; `log` tells the user of deaths."""
        self._policy = policy
        self._batch = config.learner.slots_per_batch
        actors = config.runtime.actors or 1
        self._region = _C.Region(
            rollout_layout(config, policy.initial_state(1).shape[1]),
            slots=actors * config.runtime.groups + self._batch,
            actors=actors,
            groups_per_actor=config.runtime.groups,
            run_seed=config.seed,
            game=game_settings(config.env, package),
        )
        self._rollouts = [Rollout(self._region, slot) for slot in range(len(self._region))]
        self._weights = SharedWeights.create(policy)
        self._log_file = log_path.open("ab")
        self.supervisor = Supervisor(
            config, self._region, self._weights, directory, self._log_file, log, first_episode=first_episode
        )
        self.generator = torch.Generator()  # actions are drawn by the policy worker
        self._started = False

    def set_control(self, *, phase: int, routing: str, temperature: float, policy_version: int) -> None:
        """Publishes new weights and settings; they reach the next step inferred."""
        self._region.set_control(phase=phase, routing=ROUTINGS.index(routing), temperature=temperature)
        if policy_version != self._weights.version:
            self._weights.publish(self._policy, policy_version)
            self._region.set_policy_version(policy_version)
        if not self._started:
            self._started = True
            self.supervisor.start()

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """Waits for a whole batch of rollouts; None when interrupted before.

        Raises ProcessesKeepDyingError when the run cannot go on.
        """
        while not interrupted():
            self.supervisor.check()
            full = self._region.wait_delivered(self._batch, _LONGEST_SLEEP_MS)
            if full:
                return [self._rollouts[slot] for slot in full]
        return None

    def give_back(self, rollouts: list[Rollout]) -> None:
        """Returns slots that the learner is done with."""
        for rollout in rollouts:
            self._region.give_back(rollout.slot)

    @property
    def engine_seconds(self) -> float:
        """Time that all actors together have worked."""
        return float(self._region.busy_seconds()[0])

    @property
    def inference_seconds(self) -> float:
        """Time that the policy worker has worked."""
        return float(self._region.busy_seconds()[1])

    @property
    def fatal_games(self) -> int:
        """Games that NetHack itself gave up, since the start."""
        return sum(int(self._region.fatal_games(actor)[0]) for actor in range(self._region.actors))

    def close(self) -> None:
        """Ends every process."""
        self.supervisor.stop()
        self._log_file.close()
