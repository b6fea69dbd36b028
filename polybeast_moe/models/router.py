"""The routers: bounded scores over the experts."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from polybeast_moe.config import RouterConfig
from polybeast_moe.envs.scenes import SCENES, scenes
from polybeast_moe.models.initialise import LAST_GAIN, orthogonal

INWARD_GRADIENT = 0.1
FROZEN_GAIN = 1.0  # a router that is never trained has to tell states apart from the start


class Router(nn.Module):
    """Two layers over the features, plus a prior, bounded: [N, F] (and [N, E]) -> scores [N, E].

    A frozen one keeps its first weights, and what it reads does not learn from what it says.
    """

    def __init__(self, config: RouterConfig, features: int, experts: int) -> None:
        super().__init__()
        self.bound = config.score_bound
        self.frozen = config.kind == "frozen"
        self.first = orthogonal(nn.Linear(features, config.hidden))
        self.last = orthogonal(nn.Linear(config.hidden, experts), FROZEN_GAIN if self.frozen else LAST_GAIN)
        self.requires_grad_(not self.frozen)

    def forward(self, features: Tensor, prior: Tensor | None = None) -> Tensor:
        """Features [N, F] and prior scores [N, E] -> scores [N, E] in [-bound, bound]."""
        if self.frozen:
            features = features.detach()
        scores: Tensor = self.last(F.relu(self.first(features)))
        if prior is not None:
            scores = scores + prior
        return bounded(scores, self.bound)


class SceneRouter(nn.Module):
    """No network: `bound` for the expert that bears the scene's name, `-bound` for the others. It has no parameters.

    The scenes are those that specialisation is measured by (`envs.scenes`): it shows what perfect agreement is worth.
    """

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        self.bound = config.score_bound

    def forward(self, glyphs: Tensor, blstats: Tensor) -> Tensor:
        """Scores [N, E] of maps [N, 21, 79] and status lines [N, 27]."""
        found = scenes({"glyphs": glyphs.cpu().numpy(), "blstats": blstats.cpu().numpy()})
        chosen = F.one_hot(torch.from_numpy(found), len(SCENES)).to(glyphs.device, torch.float32)
        return (2 * chosen - 1) * self.bound


def best(scores: Tensor, keep: int | None) -> Tensor:
    """Masks (-inf) all but the `keep` best scores of each row [N, E]; None keeps all."""
    if keep is None:
        return scores
    others = torch.ones_like(scores, dtype=torch.bool).scatter(-1, scores.topk(keep, dim=-1).indices, False)
    return scores.masked_fill(others, -math.inf)


def bounded(scores: Tensor, bound: float) -> Tensor:
    """`bound * tanh(scores / bound)` of any shape, with a gradient that never dies on the way back inside.

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
