"""The closed loop on alpha entropy. Pure.

It inverts its plant: `matching_temperature` is where the scores of an update's batch would have met the target. The
logarithm of the temperature goes `gain` of the way to the mean of the last two, at most `_STEP`: two, because an
actor's two groups of games take turns, each in its own states for long, and what one batch asks for the next one does
not. Nothing is summed up, so nothing can wind up behind the bounds.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polybeast_moe.config import EntropyTarget
from polybeast_moe.ops import expert_mixture
from polybeast_moe.ops.mixture import Routing

_RANGE = (1e-3, 1e3)
_PRECISION = 1e-3  # of log temperature
_MOST_ROWS = 4096
_STEP = 0.5  # of log temperature, the most in one update


def steered(
    temperature: float, matching: float | None, before: float | None, loop: EntropyTarget
) -> tuple[float, float | None]:
    """Returns the next temperature, and what to remember as `before`.

    Args:
        temperature: in force.
        matching: the matching temperature of the latest update; what is missing or not finite steers nothing.
        before: of the update before that; None: not known.
        loop: gain and bounds.
    """
    if matching is None or not math.isfinite(matching):
        return clamped(temperature, loop.bounds), before
    latest, earlier = (clamped(found, loop.bounds) for found in (matching, matching if before is None else before))
    step = loop.gain * math.log(math.sqrt(latest * earlier) / temperature)
    return clamped(temperature * math.exp(clamped(step, (-_STEP, _STEP))), loop.bounds), matching


def clamped(value: float, bounds: tuple[float, float]) -> float:
    """Returns what is nearest to the value within the bounds."""
    return min(max(value, bounds[0]), bounds[1])


@torch.no_grad()
def matching_temperature(router_scores: Tensor, target: float, routing: Routing) -> float:
    """Returns the temperature at which the mean alpha entropy of these scores [N, E] is `target`, in nats.

    Alpha entropy grows with the temperature, for softmax and sparsemax alike, so it is found by halving. Where no
    temperature in [0.001, 1000] will do (scores that are all alike, for example), the nearer end. NaN for scores that
    are not finite. Of many rows every n-th is looked at.
    """
    scores = router_scores.detach()[:: max(1, len(router_scores) // _MOST_ROWS)].float()
    if not torch.isfinite(scores).all():
        return math.nan
    no_logits = scores.new_empty((*scores.shape, 0))
    low, high = (math.log(end) for end in _RANGE)
    while high - low > _PRECISION:
        middle = (low + high) / 2
        mixture = expert_mixture(scores, no_logits, math.exp(middle), routing=routing)
        if mixture.entropy.mean().item() < target:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)
