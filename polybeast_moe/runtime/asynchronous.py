"""The asynchronous mode: actors and policy worker in processes of their own, joined by the shared region."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.base import Runtime
from polybeast_moe.runtime.defaults import slots
from polybeast_moe.runtime.rollouts import Rollout
from polybeast_moe.runtime.supervisor import Supervisor
from polybeast_moe.runtime.weights import SharedWeights

_LONGEST_SLEEP_MS = 100  # between looks at the children


class AsynchronousRuntime(Runtime):
    """Hands out full rollouts as actors deliver them.

    There is one slot for every group to fill and `learner.slots_per_batch` that wait (twice as many with
    `runtime.prefetch`): when those are full, groups stand still, which bounds how old a rollout's policy can be.
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
        rank: int = 0,
    ) -> None:
        """Makes the region. Children write to `log_path` and bear `rank` in their names; `log` tells of deaths."""
        actors = config.runtime.actors or 1
        super().__init__(
            config, policy, package, slots=slots(config.runtime, config.learner.slots_per_batch), actors=actors
        )
        self._policy = policy
        self._weights = SharedWeights.create(policy)
        self._log_file = log_path.open("ab")
        self.supervisor = Supervisor(
            config, self._region, self._weights, directory, self._log_file, log, first_episode=first_episode, rank=rank
        )

    def _publish(self, policy_version: int) -> None:
        if policy_version != self._weights.version:
            self._weights.publish(self._policy, policy_version)

    def start(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Starts every process; returns when the policy worker has answered for the first time, or when interrupted."""
        while not interrupted() and not self._region.answers:
            self.supervisor.check()
            self._region.wait_delivered(0, _LONGEST_SLEEP_MS)

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """Waits for a whole batch of rollouts; None when interrupted before.

        Raises RunFailed when the run cannot go on.
        """
        while not interrupted():
            self.supervisor.check()
            full = self._region.wait_delivered(self._batch, _LONGEST_SLEEP_MS)
            if full:
                return [self._rollouts[slot] for slot in full]
        return None

    def poll(self) -> list[Rollout]:
        """Returns a whole batch of rollouts if it waits already."""
        return [self._rollouts[slot] for slot in self._region.take_delivered(self._batch)]

    def state(self) -> dict[str, Any]:
        """Returns how many rollouts are on their way: they are not in a snapshot, a resumed run drops them.

        A batch that the learner has learnt from is no longer its own by now: what is, has been fetched ahead.
        """
        free = [self._region.state(slot)[0] for slot in range(len(self._region))].count(_C.OWNER_FREE)
        return {"mode": "asynchronous", "rollouts_in_flight": len(self._region) - free}

    def rest(self, seconds: float) -> None:
        """Watches the processes, then passes some time."""
        self.supervisor.check()
        super().rest(seconds)

    @property
    def restarts(self) -> int:
        """Processes that died and were replaced."""
        return self.supervisor.restarts

    def close(self) -> None:
        """Ends every process."""
        self.supervisor.stop()
        self._weights.close()
        self._log_file.close()
