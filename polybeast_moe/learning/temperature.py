"""Which temperature gives router scores a wanted alpha entropy. Pure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polybeast_moe.ops import expert_mixture
from polybeast_moe.ops.mixture import Routing

_RANGE = (1e-3, 1e3)
_PRECISION = 1e-3  # of log temperature
_MOST_ROWS = 4096


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
