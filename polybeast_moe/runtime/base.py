"""What both runtimes are: a shared region, its rollouts, and the settings that everybody reads there."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import game_settings
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.models import Policy
from polybeast_moe.runtime.rollouts import ROUTINGS, Rollout, rollout_layout


class Runtime(ABC):
    """Steps games with the policy and hands out full rollouts, `learner.slots_per_batch` at a time."""

    def __init__(self, config: RunConfig, policy: Policy, package: NlePackage, *, slots: int, actors: int) -> None:
        """Makes the region; `slots` of them, and `actors` of `runtime.groups` groups each."""
        self._batch = config.learner.slots_per_batch
        self._region = _C.Region(
            rollout_layout(config, policy.initial_state(1).shape[1]),
            slots=slots,
            actors=actors,
            groups_per_actor=config.runtime.groups,
            run_seed=config.seed,
            game=game_settings(config.env, package),
        )
        self._rollouts = [Rollout(self._region, slot) for slot in range(slots)]

    def set_control(self, *, phase: int, routing: str, temperature: float, policy_version: int) -> None:
        """Tells the next step inferred what to use: the phase's settings, and the policy's weights as they are now."""
        self._region.set_control(phase=phase, routing=ROUTINGS.index(routing), temperature=temperature)
        self._publish(policy_version)

    @abstractmethod
    def _publish(self, policy_version: int) -> None:
        """Makes the policy's weights those of the next inference."""

    @abstractmethod
    def start(self, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Begins the first games; returns when the first step has been made, or when interrupted."""

    @abstractmethod
    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """Returns a whole batch of rollouts, oldest first; None when interrupted before there is one."""

    def poll(self) -> list[Rollout]:
        """Returns a whole batch of rollouts that is there already; none where that cannot be, as in the inline mode."""
        return []

    def slots_memory(self) -> tuple[int, int]:
        """Address and bytes of all slots in this process: they lie one behind the other."""
        return self._region.slot(0).ctypes.data, len(self._region) * self._region.layout.slot_bytes

    def give_back(self, rollouts: list[Rollout]) -> None:
        """Returns slots that the learner is done with."""
        for rollout in rollouts:
            self._region.give_back(rollout.slot)

    def busy_seconds(self) -> dict[str, float]:
        """Returns the time that each part has worked since the start, as shares of the processes that do it."""
        engine, inference = self._region.busy_seconds()
        return {"engine": engine / self._region.actors, "inference": inference}

    @property
    def actors(self) -> int:
        """Actors that step games."""
        return self._region.actors

    @property
    def restarts(self) -> int:
        """Processes that were replaced."""
        return 0

    @property
    def fatal_games(self) -> int:
        """Games that NetHack itself gave up, since the start."""
        return sum(self._region.fatal_games(actor)[0] for actor in range(self._region.actors))

    def state(self) -> dict[str, Any]:
        """Returns what a snapshot must keep of it, as JSON holds it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> str:
        """Goes on from `state`, which a runtime of the other mode may have made; returns what could not be, if any."""
        in_flight = state.get("rollouts_in_flight", 0)
        dropped = f", {in_flight} rollouts in flight were dropped" if in_flight else ""
        return f"all games begin new episodes{dropped}"

    def pause(self, on: bool) -> None:
        """Stops games from being stepped, or lets them go on."""
        self._region.pause(on)

    def rest(self, seconds: float) -> None:
        """Passes some time while paused; whoever dies meanwhile is replaced all the same."""
        time.sleep(seconds)

    @abstractmethod
    def close(self) -> None:
        """Ends every game and process."""
