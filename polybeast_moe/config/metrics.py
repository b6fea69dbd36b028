"""Which figures of a run can end a phase or raise a guard."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from polybeast_moe.config.weights import LossWeights
from polybeast_moe.errors import nearest

METRICS = (
    "mean_episode_score",
    "mean_episode_return",
    "alpha_entropy",
    "usage_entropy",
    "routing_information",
    "smallest_share",
    "matching_temperature",
    "graph_spread",
    "policy_entropy",
    "policy_lag",
    "behaviour_kl",
    "rho_clip_share",
    "grad_norm",
    "explained_variance",
    "loss_total",
    *(f"loss_{name}" for name in LossWeights.model_fields),
)
"""Of every update, as metrics.csv names them; those of episodes are means over the last 100."""


def _known(name: str) -> str:
    if name not in METRICS:
        raise ValueError(f"{name!r} is no figure of an update{nearest(name, METRICS)}")
    return name


Metric = Annotated[str, AfterValidator(_known)]
