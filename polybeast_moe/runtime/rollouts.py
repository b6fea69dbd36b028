"""Rollout slots as named torch tensors: views of the shared region, no copies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from polybeast_moe import _C
from polybeast_moe.config import RunConfig
from polybeast_moe.envs.engine import ACTIONS
from polybeast_moe.envs.episode_record import EPISODE_FIELDS, EpisodeRecord
from polybeast_moe.models.interface import Observation
from polybeast_moe.ops.mixture import Routing

ROUTINGS: tuple[Routing, ...] = ("softmax", "sparsemax")
"""Routing by the number that slots and the control block hold."""


def rollout_layout(config: RunConfig, state_size: int) -> _C.RolloutLayout:
    """Returns the layout of a run's slots; `state_size` is the policy's floats of recurrent state a game."""
    return _C.RolloutLayout(
        unroll=config.runtime.unroll,
        games=config.runtime.games_per_group,
        actions=len(ACTIONS),
        experts=len(config.policy.expert_names),
        state=state_size,
        crop=config.env.crop_size,
        store_glyphs=config.env.store_glyphs,
        store_inventory=config.env.store_inventory,
        max_episode_steps=config.env.max_episode_steps,
        store_reward_terms=config.stores_reward_terms(),
    )


class Rollout:
    """One slot: T steps of a group of K games. `fields[name]` is a tensor view, time first, as docs/rollouts.md lists.

    Row t of an observation field is what the action in row t was chosen at; row T is the bootstrap observation.
    """

    def __init__(self, region: _C.Region, slot: int) -> None:
        self.slot = slot
        self._memory = torch.from_numpy(region.slot(slot))
        self._layout = region.layout.fields
        self.fields = _views(self._memory, self._layout)

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def to(self, device: torch.device) -> Rollout:
        """A copy on a device, by one transfer: the slot must stay as it is until that is done."""
        copy = object.__new__(Rollout)
        copy.slot, copy._layout = self.slot, self._layout
        copy._memory = self._memory.to(device, non_blocking=True, copy=True)
        copy.fields = _views(copy._memory, self._layout)
        return copy

    @property
    def finals(self) -> int:
        """How many final observations it holds."""
        return int(self["final_count"][0])

    def observation(self, t: int) -> Observation:
        """Returns the K observations of step t."""
        return observation_of(self, lambda name: self[name][t])

    def episodes(self) -> list[EpisodeRecord]:
        """Returns the records of episodes that ended in this slot, in the order of their ends."""
        count = int(self["record_count"][0])
        columns = {name: self[f"record_{name}"][:count].tolist() for name in EPISODE_FIELDS if name != "death"}
        columns["death"] = [bytes(row).rstrip(b"\0").decode("latin-1") for row in self["record_death"][:count].numpy()]
        return [{name: values[i] for name, values in columns.items()} for i in range(count)]


def observation_of(rollout: Rollout, read: Callable[[str], Tensor]) -> Observation:
    """Observations whose fields `read` gets by name: those that rollouts like this one store."""
    fields: dict[str, Any] = {name: read(name) for name in Observation._fields if name in rollout.fields}
    fields["previous_action"] = fields["previous_action"].long()
    return Observation(**fields)


@dataclass(frozen=True)
class Batch:
    """Rollouts side by side, as the learner reads them: T steps of B games.

    Shapes: observation rows are [(T+1)·B, ...] flattened time first; `first` [T+1, B]; `action`, `reward`,
    `terminated`, `truncated` [T, B]; `behaviour_logits` [T, B, A]; `policy_version` [T, B]; `initial_state` [B, S];
    the F final observations belong to games `final_game` at steps `final_step`. `reward_terms` [T, B, terms] has the
    columns of `_C.REWARD_TERMS`; None where no phase weighs them.
    """

    observation: Observation
    first: Tensor
    action: Tensor
    behaviour_logits: Tensor
    policy_version: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    initial_state: Tensor
    final_observation: Observation
    final_step: Tensor
    final_game: Tensor
    reward_terms: Tensor | None = None

    @property
    def steps(self) -> int:
        """T."""
        return self.reward.shape[0]

    @property
    def games(self) -> int:
        """B."""
        return self.reward.shape[1]


def make_batch(rollouts: list[Rollout], finals: list[int] | None = None) -> Batch:
    """Copies rollouts into one batch, so that their slots can be returned at once.

    `finals` is each one's number of final observations, for rollouts on a device that is not to be waited for.
    """
    counts = finals if finals is not None else [rollout.finals for rollout in rollouts]

    def beside(name: str) -> Tensor:
        return torch.cat([rollout[name] for rollout in rollouts], dim=1)

    def rows(name: str) -> Tensor:
        return beside(name).flatten(0, 1)

    def final(name: str) -> Tensor:
        return torch.cat([rollout[f"final_{name}"][:count] for rollout, count in zip(rollouts, counts, strict=True)])

    games = rollouts[0]["reward"].shape[1]
    offsets = [i * games for i in range(len(rollouts))]
    return Batch(
        observation=observation_of(rollouts[0], rows),
        first=beside("first").bool(),
        action=beside("action").long(),
        behaviour_logits=beside("behaviour_logits"),
        policy_version=torch.cat([r["policy_version"].unsqueeze(1).expand(-1, games) for r in rollouts], dim=1),
        reward=beside("reward"),
        terminated=beside("terminated").bool(),
        truncated=beside("truncated").bool(),
        initial_state=torch.cat([rollout["initial_state"] for rollout in rollouts]),
        final_observation=observation_of(rollouts[0], final),
        final_step=final("step").long(),
        final_game=torch.cat(
            [
                rollout["final_game"][:count].long() + offset
                for rollout, count, offset in zip(rollouts, counts, offsets, strict=True)
            ]
        ),
        reward_terms=beside("reward_terms") if "reward_terms" in rollouts[0].fields else None,
    )


def _views(memory: Tensor, layout: Sequence[tuple[str, str, tuple[int, ...], int]]) -> dict[str, Tensor]:
    """The fields of a slot's bytes by name."""
    return {name: _view(memory, getattr(torch, dtype), shape, offset) for name, dtype, shape, offset in layout}


def _view(memory: Tensor, dtype: torch.dtype, shape: tuple[int, ...], offset: int) -> Tensor:
    return memory[offset : offset + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
