"""Sparsemax and the fused mixture of experts: checks, and the choice of a backend."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from polybeast_moe.ops.backends import Backend, select_mixture

Routing = Literal["sparsemax", "softmax"]


class ExpertMixture(NamedTuple):
    """What the router made of its experts, for each row."""

    logits: Tensor
    """[N, A], dtype of the expert logits: the sum of the experts' logits weighted by alpha."""
    alpha: Tensor
    """[N, E], dtype of the router scores: weights on the simplex."""
    entropy: Tensor
    """[N], dtype of the router scores: H(alpha) in nats."""


def sparsemax(scores: Tensor, dim: int = -1, *, backend: Backend = "auto") -> Tensor:
    """Euclidean projection of `scores` onto the probability simplex along `dim`: [..., n, ...] -> the same shape.

    Martins & Astudillo, "From Softmax to Sparsemax" (2016). Any shape and strides; float16, bfloat16, float32 and
    float64, of which the first two are computed in higher precision and rounded once. -inf masks an entry; a row that
    holds NaN or +inf, or nothing but -inf, is NaN. The gradient is the closed form on the support and zero off it.

    Raises ValueError for a dtype that is not floating or an empty `dim`, UserError for a backend that cannot run here.
    """
    _check_floating(scores, "scores")
    moved = scores.movedim(dim, -1)
    size = moved.shape[-1]
    if size == 0:
        raise ValueError(f"sparsemax needs at least one score along dim {dim}, got shape {tuple(scores.shape)}")
    rows = moved.reshape(math.prod(moved.shape[:-1]), size)
    mixture = select_mixture(backend, scores.device, size)
    no_logits = rows.detach().new_empty((rows.shape[0], size, 0))
    _, alpha, _ = mixture(rows, no_logits, 1.0, True)
    return alpha.reshape(moved.shape).movedim(-1, dim)


def expert_mixture(
    router_scores: Tensor,
    expert_logits: Tensor,
    temperature: float | Tensor,
    *,
    routing: Routing = "sparsemax",
    backend: Backend = "auto",
) -> ExpertMixture:
    """Weighs experts by their scores and mixes their logits, in one pass over them where a fused backend runs.

    alpha = routing(router_scores / temperature), logits = sum over e of alpha[e] * expert_logits[e].

    Args:
        router_scores: [N, E], any strides, N may be 0. -inf masks an expert; a row that holds NaN or +inf, or nothing
            but -inf, is NaN throughout.
        expert_logits: [N, E, A], finite, any strides. An expert of zero weight is not read by the fused backends.
        temperature: positive and finite; a 0-d tensor (of any device) is read where the op runs. It is a constant:
            no gradient flows to it.
        routing: "sparsemax" or "softmax".
        backend: "torch", "numba" (CPU), "triton" (CUDA), or "auto" for the fused one of the device where it runs.

    Returns:
        ExpertMixture. Gradients flow from all three parts to the scores and the logits. The entropy counts
        0 log 0 as 0, and its gradient is zero off the support.

    Raises:
        ValueError: shapes, dtypes or devices that do not fit, an unknown routing, a temperature that is not positive
            and finite (a temperature on a GPU is not looked at: that would wait for it).
        UserError: a backend asked for by name cannot run here.
    """
    _check_shapes(router_scores, expert_logits)
    if routing not in ("sparsemax", "softmax"):
        raise ValueError(f"routing must be 'sparsemax' or 'softmax', got {routing!r}")
    mixture = select_mixture(backend, router_scores.device, router_scores.shape[1])
    return ExpertMixture(*mixture(router_scores, expert_logits, _constant(temperature), routing == "sparsemax"))


def _constant(temperature: float | Tensor) -> float | Tensor:
    """The temperature as a checked float, or as it is where it lies on a GPU."""
    if isinstance(temperature, Tensor):
        if temperature.numel() != 1:
            raise ValueError(f"temperature must be one number, got shape {tuple(temperature.shape)}")
        if temperature.device.type != "cpu":
            return temperature.detach().reshape(())
        temperature = float(temperature.detach())
    if not (0 < temperature < math.inf):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    return temperature


def _check_shapes(router_scores: Tensor, expert_logits: Tensor) -> None:
    _check_floating(router_scores, "router_scores")
    _check_floating(expert_logits, "expert_logits")
    if router_scores.ndim != 2 or router_scores.shape[1] == 0:
        raise ValueError(f"router_scores must be [N, E] with E >= 1, got {tuple(router_scores.shape)}")
    if expert_logits.ndim != 3 or expert_logits.shape[:2] != router_scores.shape:
        raise ValueError(
            f"expert_logits must be [N, E, A] for router_scores {tuple(router_scores.shape)}, "
            f"got {tuple(expert_logits.shape)}"
        )
    if expert_logits.device != router_scores.device:
        raise ValueError(f"router_scores are on {router_scores.device}, expert_logits on {expert_logits.device}")


def _check_floating(tensor: Tensor, name: str) -> None:
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise ValueError(f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}")
