"""The router: bounded scores over the experts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.config import RouterConfig
from polybeast_moe.models.initialise import LAST_GAIN, orthogonal

INWARD_GRADIENT = 0.1


class Router(nn.Module):
    """Two layers over the features, plus a prior, bounded: [N, F] (and [N, E]) -> scores [N, E]."""

    def __init__(self, config: RouterConfig, features: int, experts: int) -> None:
        super().__init__()
        self.bound = config.score_bound
        self.first = orthogonal(nn.Linear(features, config.hidden))
        self.last = orthogonal(nn.Linear(config.hidden, experts), LAST_GAIN)

    def forward(self, features: Tensor, prior: Tensor | None = None) -> Tensor:
        """Scores in [-bound, bound]."""
        scores: Tensor = self.last(F.relu(self.first(features)))
        if prior is not None:
            scores = scores + prior
        return bounded(scores, self.bound)


def bounded(scores: Tensor, bound: float) -> Tensor:
    """`bound * tanh(scores / bound)`, with a gradient that never dies on the way back inside.

    tanh is flat in float32 from about nine bounds on: a router that once got there would stay. So where the derivative
    is below INWARD_GRADIENT and the gradient asks for a score nearer to zero, the gradient is multiplied by
    INWARD_GRADIENT instead of by the derivative. Outward it keeps the true derivative, so that scores do not drift away
    from the bound. Not differentiable twice.
    """
    if not torch.is_grad_enabled():
        return torch.tanh(scores / bound) * bound
    result: Tensor = _Bounded.apply(scores, bound)  # type: ignore[no-untyped-call]
    return result


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, bound: float) -> Tensor:
        unit = torch.tanh(scores / bound)
        ctx.save_for_backward(unit)
        return unit * bound

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (unit,) = ctx.saved_tensors
        derivative = 1 - unit * unit
        inward = gradient * unit > 0  # descent lowers a positive score, raises a negative one
        return gradient * torch.where(inward, derivative.clamp(min=INWARD_GRADIENT), derivative), None
