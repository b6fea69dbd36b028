"""The torch backend: the readable reference that the fused backends must reproduce, on any device.

The router's arithmetic (E numbers a row) is done in float64 whatever the dtype, so that every backend finds the same
support however it orders its sums; the mixture (E x A numbers a row) in float32, or float64 for float64 inputs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# A score exactly on the threshold leaves a weight of rounding size (about 1e-16) or zero, depending on the order of
# summation. Weights up to this bound are zero, in every backend.
SMALLEST_WEIGHT = 1e-12


class _SimplexProjection(torch.autograd.Function):
    """Euclidean projection of the last dimension onto the simplex (Martins & Astudillo 2016, algorithm 1)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        descending = z.sort(dim=-1, descending=True).values
        cumulative = descending.cumsum(-1)
        rank = torch.arange(1, z.shape[-1] + 1, dtype=z.dtype, device=z.device)
        in_support = 1 + rank * descending > cumulative
        support_size = in_support.sum(-1, keepdim=True).clamp(min=1)
        threshold = (cumulative.gather(-1, support_size - 1) - 1) / support_size
        weights: Tensor = z - threshold
        alpha = weights.masked_fill(weights <= SMALLEST_WEIGHT, 0.0)
        ctx.save_for_backward(alpha)
        return alpha

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        alpha: Tensor
        (alpha,) = ctx.saved_tensors
        support = (alpha > 0).to(alpha.dtype)
        on_support = gradients[0] * support
        gradient: Tensor = on_support - support * on_support.sum(-1, keepdim=True) / support.sum(-1, keepdim=True)
        return gradient


def mixture(
    router_scores: Tensor, expert_logits: Tensor, temperature: float | Tensor, sparse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """[N, E] scores and [N, E, A] logits to ([N, A] mixed logits, [N, E] alpha, [N] entropy)."""
    precise = torch.promote_types(expert_logits.dtype, torch.float32)
    z = (router_scores.double() - router_scores.detach().double().amax(-1, keepdim=True)) / temperature
    weights: Tensor = _SimplexProjection.apply(z) if sparse else z.softmax(-1)  # type: ignore[no-untyped-call]
    # Off the support log(1) = 0 makes both the value and the gradient of this term zero.
    entropy = -(weights * weights.masked_fill(weights == 0, 1.0).log()).sum(-1)
    mixed = (weights.to(precise).unsqueeze(1) @ expert_logits.to(precise)).squeeze(1)
    return mixed.to(expert_logits.dtype), weights.to(router_scores.dtype), entropy.to(router_scores.dtype)
