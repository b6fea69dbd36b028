"""The inline mode: engine and policy take turns in this process. Deterministic, and the oracle for every other mode."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import game_settings
from polybeast_moe.envs.nle_package import NlePackage
from polybeast_moe.runtime.rollouts import ROUTINGS, Rollout, rollout_layout


class InlineRuntime:
    """Steps every group of games with the policy and hands out full rollouts.

    Time spent is added up in `engine_seconds` and `inference_seconds`.
    """

    def __init__(
        self,
        config: RunConfig,
        policy: nn.Module,
        package: NlePackage,
        directory: Path,
        *,
        first_episode: int = 0,
    ) -> None:
        """Makes games under `directory`; episodes are numbered from `first_episode` on, so that none is replayed."""
        self._policy = policy
        self._steps = config.runtime.unroll
        initial = policy.initial_state(1)
        games = config.runtime.games_per_group
        layout = rollout_layout(config, initial.shape[1])
        self._region = _C.Region(layout, config.learner.slots_per_batch)
        library = _C.LibraryFile(str(package.library))
        settings = game_settings(config.env, package)
        self._groups = [
            _C.Group(
                library,
                settings,
                directory,
                layout,
                run_seed=config.seed,
                first_game=index * games,
                first_episode=first_episode,
            )
            for index in range(config.runtime.groups)
        ]
        self._states: list[Tensor] = [policy.initial_state(games) for _ in self._groups]
        self._rollouts = [Rollout(self._region, slot) for slot in range(len(self._region))]
        self.generator = torch.Generator().manual_seed(config.seed)
        self.engine_seconds = 0.0
        self.inference_seconds = 0.0

    def set_control(self, *, phase: int, routing: str, temperature: float, policy_version: int) -> None:
        """Tells the next step inferred what to use."""
        self._region.set_control(phase=phase, routing=ROUTINGS.index(routing), temperature=temperature)
        self._region.set_policy_version(policy_version)

    def collect(self, interrupted: Callable[[], bool] = lambda: False) -> list[Rollout] | None:
        """Fills every slot once, group by group. Returns None, with nothing delivered, when interrupted half-way."""
        rounds = len(self._rollouts) // len(self._groups)
        delivered: list[Rollout] = []
        for _ in range(rounds):
            slots = [self._take(index) for index in range(len(self._groups))]
            if not self._fill(slots, interrupted):
                self._give_up(delivered, slots)
                return None
            for index, rollout in enumerate(slots):
                self._hand_over(rollout, _C.OWNER_FIRST_GROUP + index, _C.OWNER_DELIVERED)
                self._hand_over(rollout, _C.OWNER_DELIVERED, _C.OWNER_LEARNER)
                delivered.append(rollout)
        return delivered

    def give_back(self, rollouts: list[Rollout]) -> None:
        """Returns slots that the learner is done with."""
        for rollout in rollouts:
            self._hand_over(rollout, _C.OWNER_LEARNER, _C.OWNER_FREE)

    @property
    def fatal_games(self) -> int:
        """Games that NetHack itself gave up, since the start."""
        return sum(group.fatal_games for group in self._groups)

    def close(self) -> None:
        """Ends every game and removes its files."""
        self._rollouts.clear()
        self._groups.clear()

    def _fill(self, slots: list[Rollout], interrupted: Callable[[], bool]) -> bool:
        for index, rollout in enumerate(slots):
            self._engine(self._groups[index].open, rollout)
            rollout["initial_state"].copy_(self._states[index])
        for t in range(self._steps):
            if interrupted():
                return False
            for index, rollout in enumerate(slots):
                self._infer(index, rollout, t)
                self._engine(self._groups[index].step, rollout, t)
        return True

    def _engine(self, call: Callable[..., None], rollout: Rollout, *arguments: int) -> None:
        began = time.perf_counter()
        call(self._region, rollout.slot, *arguments)
        self.engine_seconds += time.perf_counter() - began

    def _infer(self, index: int, rollout: Rollout, t: int) -> None:
        began = time.perf_counter()
        control = self._region.control
        output = self._policy.infer(
            rollout.observation(t),
            self._states[index],
            routing=ROUTINGS[control["routing"]],
            temperature=control["temperature"],
            first=rollout["first"][t].bool(),
            weights_version=control["policy_version"],
        )
        probabilities = torch.softmax(output.logits, dim=-1)
        action = torch.multinomial(probabilities, 1, generator=self.generator).squeeze(1)
        rollout["action"][t].copy_(action)
        rollout["behaviour_logits"][t].copy_(output.logits)
        rollout["alpha"][t].copy_(output.alpha)
        rollout["policy_version"][t] = control["policy_version"]
        rollout["phase"][t] = control["phase"]
        rollout["routing"][t] = control["routing"]
        rollout["temperature"][t] = control["temperature"]
        if output.state is not None:
            self._states[index] = output.state
        self.inference_seconds += time.perf_counter() - began

    def _take(self, group: int) -> Rollout:
        for rollout in self._rollouts:
            if self._region.hand_over(rollout.slot, _C.OWNER_FREE, _C.OWNER_FIRST_GROUP + group):
                return rollout
        raise RuntimeError("no free slot: rollouts were not given back")

    def _hand_over(self, rollout: Rollout, from_: int, to: int) -> None:
        if not self._region.hand_over(rollout.slot, from_, to):
            raise RuntimeError(f"slot {rollout.slot} is not its owner's: {self._region.state(rollout.slot)}")

    def _give_up(self, delivered: list[Rollout], filling: list[Rollout]) -> None:
        self.give_back(delivered)
        for index, rollout in enumerate(filling):
            self._region.take_back(rollout.slot, _C.OWNER_FIRST_GROUP + index)
