"""How the experts share the work, told from the router's weights. Pure.

With alpha the router's weights and H the entropy in nats, over the states of one batch or window: alpha entropy is the
mean of H(alpha), usage entropy is H(mean alpha), and routing information, their difference, is the mutual information
I(state; expert).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def entropy(probabilities: Sequence[float]) -> float:
    """Returns H(p) = -sum p ln p in nats, with 0 ln 0 = 0."""
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def routing_figures(mean_alpha: Sequence[float], alpha_entropy: float) -> dict[str, float]:
    """Returns figures of the mean alpha [E], which a mean of figures of parts is not, under names of `metrics.csv`."""
    usage_entropy = entropy(mean_alpha)
    return {"usage_entropy": usage_entropy, "routing_information": usage_entropy - alpha_entropy}


def usage(mean_alpha: Sequence[float], alpha_entropy: float) -> dict[str, float]:
    """Returns what an update says of the experts' shares: the smallest one, and `routing_figures`."""
    return {"smallest_share": min(mean_alpha), **routing_figures(mean_alpha, alpha_entropy)}
