"""What goes into a policy and what comes out of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

from polybeast_moe.models.graph_plan import GraphPlan
from polybeast_moe.ops.mixture import Routing

T = TypeVar("T")


class Observation(NamedTuple):
    """One observation a row. Rows are any flat batch; with a recurrent core they are [T, B] flattened, time first."""

    glyph_crop: Tensor
    """[N, C, C] int16: glyphs around the hero, who stands in the middle; `nle.nethack.NO_GLYPH` outside the map."""
    blstats: Tensor
    """[N, 27] int64, in the order of `nle.nethack.NLE_BL_*`."""
    conditions: Tensor
    """[N, W] int64: the lit conditions, bit i % 64 of word i / 64 (uint64 words viewed as int64)."""
    previous_action: Tensor
    """[N] int64: index of the action that led here; the number of actions A where there was none."""
    message: Tensor | None = None
    """[N, 256] uint8, NUL padded; None only where the policy does not read it."""
    glyphs: Tensor | None = None
    """[N, 21, 79] int16: the whole map; None where rollouts do not store it (`env.store_glyphs`)."""
    inv_glyphs: Tensor | None = None
    """[N, 55] int16: the inventory's glyphs, `NO_GLYPH` behind its end; None where it is not stored
    (`env.store_inventory`), as are the next two."""
    inv_letters: Tensor | None = None
    """[N, 55] uint8: the letters by which the stacks are called; 0 behind the end."""
    inv_oclasses: Tensor | None = None
    """[N, 55] uint8: their object classes; `MAXOCLASSES` behind the end."""
    graph_plan: GraphPlan | None = None
    """What `Policy.plan` made of the conditions on the host; None: the policy does so itself."""


class PolicyOutput(NamedTuple):
    """What the policy makes of N rows, with A actions and E experts."""

    logits: Tensor
    """[N, A]: action logits of the mixture."""
    value: Tensor
    """[N]: estimate of the discounted return."""
    alpha: Tensor
    """[N, E]: weights of the experts, on the simplex."""
    router_scores: Tensor
    """[N, E]: bounded scores of all experts, before the temperature divides them."""
    alpha_entropy: Tensor
    """[N]: H(alpha) in nats."""
    expert_logits: Tensor
    """[N, E, A]: what each expert alone would say; zeros where it has no weight and so did not run."""
    state: Tensor | None
    """[B, S]: recurrent state after the last step; what was given where there is no recurrent core."""
    states: Tensor | None
    """[T, B, S]: recurrent state after each step (for bootstraps at truncations); None without a recurrent core."""
    operator_prior: Tensor | None = None
    """[N, E]: bounded scores that the operator prior alone would give; None without one, and without gradients."""
    graph_moments: Tensor | None = None
    """[hidden + 1]: means over rows and operators of the operators' states after attention and of their squared
    length; None as the prior."""


def moved(parts: T, move: Callable[[Tensor], Tensor]) -> T:
    """Named tuples of tensors, of others like them and of None, with every tensor as `move` gives it back."""
    if isinstance(parts, Tensor):
        return cast(T, move(parts))
    if isinstance(parts, tuple):
        return cast(T, cast(Any, type(parts))(*(moved(part, move) for part in parts)))
    return parts


class Policy(nn.Module, ABC):
    """What learner and runtime need of a policy; the shapes are those of `Observation` and `PolicyOutput`."""

    @abstractmethod
    def initial_state(self, batch: int) -> Tensor:
        """Returns [batch, S] zeros, the recurrent state before an episode's first step; S may be 0."""

    @abstractmethod
    def forward(
        self,
        observation: Observation,
        state: Tensor | None = None,
        *,
        routing: Routing = "sparsemax",
        temperature: float | Tensor = 1.0,
        first: Tensor | None = None,
        weights_version: int | None = None,
        every_expert: bool = False,
    ) -> PolicyOutput:
        """Runs the policy on N = T * B rows, time first; `first` [T, B] is True where an episode begins.

        `every_expert`: `expert_logits` are wanted of experts without weight too. Asked for by losses that compare them.
        """

    def plan(self, conditions: Tensor) -> GraphPlan | None:  # noqa: ARG002
        """What can be worked out of packed conditions [N, W] on the host, before observations go to a device.

        It comes back as `Observation.graph_plan`; None: nothing.
        """
        return None

    @torch.inference_mode()
    def infer(
        self,
        observation: Observation,
        state: Tensor | None = None,
        *,
        routing: Routing = "sparsemax",
        temperature: float | Tensor = 1.0,
        first: Tensor | None = None,
        weights_version: int | None = None,
    ) -> PolicyOutput:
        """One step of B games without gradients: as `forward` with T = 1, `first` [B]; None: no game starts here.

        Results may be kept until `weights_version` changes.
        """
        if first is None:
            first = observation.blstats.new_zeros(len(observation.blstats), dtype=torch.bool)
        return self.forward(
            observation,
            state,
            routing=routing,
            temperature=temperature,
            first=first[None],
            weights_version=weights_version,
        )
