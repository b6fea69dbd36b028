"""The triton backend: one kernel forward, one backward, the projection exact and in registers.

A program takes a block of rows and keeps its scores [rows, E] in registers; the experts' logits pass through in blocks
of actions and are read once. E is padded to a power of two; offsets are 64-bit. Experts of zero weight are not read.
"""

# Kernels are written in triton's language, whose functions carry no Python types.
# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from polybeast_moe.ops.reference import SMALLEST_WEIGHT as _SMALLEST_WEIGHT

SMALLEST_WEIGHT = tl.constexpr(_SMALLEST_WEIGHT)
TILE = 2048
"""Expert logits that a program holds at once: eight a thread."""
NUM_WARPS = 8


@triton.jit
def _shifted(scores, temperature, is_expert):
    """z = (scores - max) / temperature in float64; all NaN if any score is NaN or +inf, or if none is finite."""
    largest = tl.max(scores, axis=1)
    undefined = tl.sum(((scores != scores) | (scores == float("inf"))).to(tl.int32), axis=1) > 0
    undefined = undefined | (largest == float("-inf"))
    shift = tl.where(undefined, float("nan"), largest.to(tl.float64))
    z = (scores.to(tl.float64) - shift[:, None]) / temperature
    return tl.where(is_expert, z, float("-inf"))


@triton.jit
def _project(z):
    """Projection onto the simplex: the support shrinks until it is the set above its own threshold (Michelot 1986).

    No weight exceeds 1, so the threshold is at least -1 and the search starts there; at most E rounds. All rows of the
    block go round together; a row that has settled does not move.
    """
    threshold = tl.full([z.shape[0]], -1.0, tl.float64)
    shrinking = 1
    while shrinking > 0:
        inside = z > threshold[:, None]
        size = tl.sum(inside.to(tl.float64), axis=1)
        total = tl.sum(tl.where(inside, z, 0.0), axis=1)
        new = (total - 1.0) / size
        rises = new > threshold
        threshold = tl.where(rises, new, threshold)
        shrinking = tl.max(rises.to(tl.int32), axis=0)
    weights = z - threshold[:, None]
    return tl.where(weights <= SMALLEST_WEIGHT, 0.0, weights)


@triton.jit
def _softmax(z, precise: tl.constexpr):
    weights = tl.exp(z.to(precise))
    return weights / tl.sum(weights, axis=1)[:, None]


@triton.jit
def forward_kernel(
    scores, logits, temperature, mixed, alpha, entropy,
    num_rows, num_experts, num_actions,
    score_stride_n, score_stride_e, logit_stride_n, logit_stride_e, logit_stride_a,
    SPARSE: tl.constexpr, ROWS: tl.constexpr, EXPERTS: tl.constexpr, ACTIONS: tl.constexpr,
):  # fmt: skip
    """Scores [N, E] and logits [N, E, A] to mixed [N, A], alpha [N, E] and entropy [N], all dense."""
    precise: tl.constexpr = alpha.dtype.element_ty
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    e = tl.arange(0, EXPERTS).to(tl.int64)
    is_row = n < num_rows
    is_expert = (e < num_experts)[None, :]
    is_weight = is_row[:, None] & is_expert
    row_scores = tl.load(
        scores + n[:, None] * score_stride_n + e[None, :] * score_stride_e, mask=is_weight, other=float("-inf")
    )
    row_scores = tl.where(is_row[:, None], row_scores.to(precise), 0.0)
    z = _shifted(row_scores, tl.load(temperature), is_expert)
    weights = _project(z).to(precise) if SPARSE else _softmax(z, precise)
    information = -tl.sum(weights * tl.log(tl.where(weights == 0, 1.0, weights)), axis=1)
    tl.store(alpha + n[:, None] * num_experts + e[None, :], weights, mask=is_weight)
    tl.store(entropy + n, information, mask=is_row)

    used = is_weight & (weights != 0)
    for start in range(0, num_actions, ACTIONS):
        a = start + tl.arange(0, ACTIONS).to(tl.int64)
        is_action = a < num_actions
        tile = tl.load(
            logits
            + (n[:, None] * logit_stride_n + e[None, :] * logit_stride_e)[:, :, None]
            + (a * logit_stride_a)[None, None, :],
            mask=used[:, :, None] & is_action[None, None, :],
            other=0.0,
        )
        total = tl.sum(weights[:, :, None] * tile.to(precise), axis=1)
        tl.store(mixed + n[:, None] * num_actions + a[None, :], total, mask=is_row[:, None] & is_action[None, :])


@triton.jit
def backward_kernel(
    alpha, logits, temperature, d_mixed, d_alpha, d_entropy, d_scores, d_logits,
    num_rows, num_experts, num_actions,
    logit_stride_n, logit_stride_e, logit_stride_a, d_stride_n, d_stride_e, d_stride_a,
    SPARSE: tl.constexpr, ROWS: tl.constexpr, EXPERTS: tl.constexpr, ACTIONS: tl.constexpr,
):  # fmt: skip
    """Gradients of mixed, alpha and entropy (dense) to those of the scores (dense) and of the logits."""
    precise: tl.constexpr = alpha.dtype.element_ty
    n = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    e = tl.arange(0, EXPERTS).to(tl.int64)
    is_row = n < num_rows
    is_weight = is_row[:, None] & (e < num_experts)[None, :]
    row = n[:, None] * num_experts + e[None, :]
    weights = tl.load(alpha + row, mask=is_weight, other=0.0)
    used = weights != 0

    slope = tl.load(d_alpha + row, mask=is_weight, other=0.0)
    upstream_entropy = tl.load(d_entropy + n, mask=is_row, other=0.0)
    slope -= upstream_entropy[:, None] * (tl.log(tl.where(used, weights, 1.0)) + 1.0)
    for start in range(0, num_actions, ACTIONS):
        a = start + tl.arange(0, ACTIONS).to(tl.int64)
        is_action = a < num_actions
        upstream = tl.load(
            d_mixed + n[:, None] * num_actions + a[None, :], mask=is_row[:, None] & is_action[None, :], other=0.0
        ).to(precise)
        tile = tl.load(
            logits
            + (n[:, None] * logit_stride_n + e[None, :] * logit_stride_e)[:, :, None]
            + (a * logit_stride_a)[None, None, :],
            mask=used[:, :, None] & is_action[None, None, :],
            other=0.0,
        )
        slope += tl.sum(upstream[:, None, :] * tile.to(precise), axis=2)
        tl.store(
            d_logits
            + (n[:, None] * d_stride_n + e[None, :] * d_stride_e)[:, :, None]
            + (a * d_stride_a)[None, None, :],
            weights[:, :, None] * upstream[:, None, :],
            mask=is_weight[:, :, None] & is_action[None, None, :],
        )

    share = tl.where(used, 1.0, 0.0).to(precise) if SPARSE else weights
    size = tl.sum(share, axis=1)
    mean = tl.sum(share * slope, axis=1) / tl.where(size == 0, 1.0, size)
    gradient = share * (slope - mean[:, None]) / tl.load(temperature).to(precise)
    tl.store(d_scores + row, tl.where(used, gradient, 0.0), mask=is_weight)


def block_sizes(num_experts: int, num_actions: int) -> dict[str, int]:
    """The tile of one program: EXPERTS holds all experts, ACTIONS and ROWS fill what TILE leaves."""
    experts = triton.next_power_of_2(num_experts)
    actions = min(triton.next_power_of_2(max(num_actions, 1)), max(TILE // experts, 16))
    return {"EXPERTS": experts, "ACTIONS": actions, "ROWS": max(TILE // (experts * actions), 1)}


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, logits: Tensor, temperature: Tensor, sparse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        num_rows, num_experts, num_actions = logits.shape
        precise = torch.promote_types(torch.promote_types(scores.dtype, logits.dtype), torch.float32)
        mixed = logits.new_empty((num_rows, num_actions))
        alpha = scores.new_empty(scores.shape, dtype=precise)
        entropy = scores.new_empty(num_rows, dtype=precise)
        blocks = block_sizes(num_experts, num_actions)
        if num_rows > 0:
            forward_kernel[(triton.cdiv(num_rows, blocks["ROWS"]),)](
                scores, logits, temperature, mixed, alpha, entropy, num_rows, num_experts, num_actions,
                *scores.stride(), *logits.stride(), SPARSE=sparse, num_warps=NUM_WARPS, **blocks,
            )  # fmt: skip
        ctx.save_for_backward(alpha, logits, temperature)
        ctx.sparse, ctx.score_dtype = sparse, scores.dtype
        return mixed, alpha, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor, d_alpha: Tensor, d_entropy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        alpha, logits, temperature = ctx.saved_tensors
        num_rows, num_experts, num_actions = logits.shape
        d_scores = alpha.new_empty(alpha.shape, dtype=ctx.score_dtype)
        d_logits = torch.empty_like(logits)
        blocks = block_sizes(num_experts, num_actions)
        if num_rows > 0:
            backward_kernel[(triton.cdiv(num_rows, blocks["ROWS"]),)](
                alpha, logits, temperature, d_mixed.contiguous(), d_alpha.contiguous(), d_entropy.contiguous(),
                d_scores, d_logits, num_rows, num_experts, num_actions, *logits.stride(), *d_logits.stride(),
                SPARSE=ctx.sparse, num_warps=NUM_WARPS, **blocks,
            )  # fmt: skip
        return d_scores, d_logits, None, None


def mixture(
    router_scores: Tensor, expert_logits: Tensor, temperature: float | Tensor, sparse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """[N, E] scores and [N, E, A] logits to ([N, A] mixed logits, [N, E] alpha, [N] entropy)."""
    # In memory of the device either way: reading a tensor's value here would wait for the GPU.
    if isinstance(temperature, Tensor):
        divisor = temperature.detach().to(router_scores.device, torch.float64)
    else:
        divisor = torch.full((), temperature, dtype=torch.float64, device=router_scores.device)
    with torch.cuda.device_of(router_scores):  # type: ignore[no-untyped-call]
        mixed, alpha, entropy = _Mixture.apply(router_scores, expert_logits, divisor, sparse)  # type: ignore[no-untyped-call]
    return mixed, alpha.to(router_scores.dtype), entropy.to(router_scores.dtype)
