"""The numba backend: one pass over the experts' logits forward, one backward, rows shared among threads.

The kernels are plain machine code that releases the GIL. Rows are shared by a thread pool of this module and not by
numba's own threading layers: its OpenMP layer spins beside torch's, and its workqueue layer aborts the process when two
threads call it at once.
"""

# numba infers the types of the kernels' arguments.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from polybeast_moe.ops.compiled import compiled
from polybeast_moe.ops.reference import SMALLEST_WEIGHT

# Rows go to more than one thread only when each gets at least this many expert logits, about a quarter of a millisecond
# of work: below that, waking a thread and handing it the interpreter's lock costs what it saves (docs/ops.md).
MIN_LOGITS_PER_THREAD = 131_072
SHARES_PER_THREAD = 4


@compiled
def _shift(scores, stride, temperature, z):
    """z = (scores - max) / temperature in float64; all NaN if any score is NaN or +inf, or if none is finite."""
    largest = scores[0]
    for e in range(z.size):
        score = scores[e * stride]
        if score > largest or score != score:
            largest = score
    shift = np.float64(largest) if np.isfinite(largest) else np.nan
    for e in range(z.size):
        z[e] = (np.float64(scores[e * stride]) - shift) / temperature


@compiled
def _project(z, alpha):
    """Projection of z (maximum 0) onto the simplex: the support shrinks until it is the set above its own threshold.

    No weight exceeds 1, so the threshold is at least -1 and the search starts there. Each round either ends it or drops
    an entry: exact after at most E rounds (Michelot 1986), three or four in practice. Rows of NaN stay NaN.
    """
    threshold, size = -1.0, z.size + 1
    while True:
        above, total = 0, 0.0
        for e in range(z.size):
            inside = z[e] > threshold
            above += inside
            total += z[e] if inside else 0.0
        if above >= size or above == 0:
            break
        size = above
        threshold = (total - 1.0) / above
    for e in range(z.size):
        weight = z[e] - threshold
        alpha[e] = 0.0 if weight <= SMALLEST_WEIGHT else weight


@compiled
def _softmax(z, alpha):
    total = 0.0
    for e in range(z.size):
        alpha[e] = np.exp(alpha.dtype.type(z[e]))
        total += alpha[e]
    scale = alpha.dtype.type(1.0 / total)
    for e in range(z.size):
        alpha[e] *= scale


@compiled
def _forward(scores, score_strides, logits, logit_strides, temperature, sparse, mixed, alpha, entropy, begin, end):
    z = np.empty(alpha.shape[1], np.float64)
    for n in range(begin, end):
        weights, row = alpha[n], mixed[n]
        _shift(scores[n * score_strides[0] :], score_strides[1], temperature, z)
        if sparse:
            _project(z, weights)
        else:
            _softmax(z, weights)
        row[:] = 0
        information = entropy.dtype.type(0)
        for e in range(z.size):
            weight = weights[e]
            if weight == 0:
                continue
            information -= weight * np.log(weight)
            expert = logits[n * logit_strides[0] + e * logit_strides[1] :]
            for a in range(row.size):
                row[a] += weight * expert[a]
        entropy[n] = information


@compiled
def _backward(
    alpha,
    logits,
    logit_strides,
    temperature,
    sparse,
    d_mixed,
    d_alpha,
    d_entropy,
    d_scores,
    d_logits,
    d_strides,
    begin,
    end,
):
    zero, one = alpha.dtype.type(0), alpha.dtype.type(1)
    for n in range(begin, end):
        weights, upstream, slopes = alpha[n], d_mixed[n], d_scores[n]
        size, mean = zero, zero
        for e in range(weights.size):
            weight = weights[e]
            d_expert = d_logits[n * d_strides[0] + e * d_strides[1] :]
            if weight == 0:
                slopes[e] = 0
                for a in range(upstream.size):
                    d_expert[a] = 0
                continue
            expert = logits[n * logit_strides[0] + e * logit_strides[1] :]
            slope = zero
            for a in range(upstream.size):
                slope += upstream[a] * expert[a]
            for a in range(upstream.size):
                d_expert[a] = weight * upstream[a]
            slope += d_alpha[n, e]
            if d_entropy[n] != 0:
                slope -= d_entropy[n] * (np.log(weight) + one)
            slopes[e] = slope
            share = one if sparse else weight
            size += share
            mean += share * slope
        mean /= size
        for e in range(weights.size):
            share = weights[e] if not sparse or weights[e] == 0 else one
            slopes[e] = share * (slopes[e] - mean) / temperature


class _Mixture(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, logits: Tensor, temperature: float, sparse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        logits = _unit_last_stride(logits)
        mixed, alpha, entropy = _mix(scores, logits, temperature, sparse)
        ctx.save_for_backward(alpha, logits)
        ctx.settings = (temperature, sparse)
        return mixed, alpha, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_mixed: Tensor, d_alpha: Tensor, d_entropy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        alpha, logits = ctx.saved_tensors
        temperature, sparse = ctx.settings
        d_scores = torch.empty_like(alpha)
        d_logits = torch.empty_like(logits)
        _for_rows(
            _backward, logits, alpha.numpy(), _flat(logits), logits.stride(), temperature, sparse,
            d_mixed.contiguous().numpy(), d_alpha.contiguous().numpy(), d_entropy.contiguous().numpy(),
            d_scores.numpy(), _flat(d_logits), d_logits.stride(),
        )  # fmt: skip
        return d_scores, d_logits, None, None


def mixture(
    router_scores: Tensor, expert_logits: Tensor, temperature: float | Tensor, sparse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """[N, E] scores and [N, E, A] logits to ([N, A] mixed logits, [N, E] alpha, [N] entropy)."""
    precise = torch.promote_types(torch.promote_types(router_scores.dtype, expert_logits.dtype), torch.float32)
    scores, logits = router_scores.to(precise), expert_logits.to(precise)
    if torch.is_grad_enabled():
        mixed, alpha, entropy = _Mixture.apply(scores, logits, float(temperature), sparse)  # type: ignore[no-untyped-call]
    else:
        mixed, alpha, entropy = _mix(scores, _unit_last_stride(logits), float(temperature), sparse)
    return mixed.to(expert_logits.dtype), alpha.to(router_scores.dtype), entropy.to(router_scores.dtype)


def _mix(scores: Tensor, logits: Tensor, temperature: float, sparse: bool) -> tuple[Tensor, Tensor, Tensor]:
    mixed = logits.new_empty((logits.shape[0], logits.shape[2]))
    alpha = scores.new_empty(scores.shape)
    entropy = scores.new_empty(scores.shape[:1])
    _for_rows(
        _forward, logits, _flat(scores), scores.stride(), _flat(logits), logits.stride(), temperature, sparse,
        mixed.numpy(), alpha.numpy(), entropy.numpy(),
    )  # fmt: skip
    return mixed, alpha, entropy


def _unit_last_stride(tensor: Tensor) -> Tensor:
    """The tensor, copied only if neighbours along its last dimension are not neighbours in memory."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _flat(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The memory under a strided tensor as one dense array: kernels index it by stride and see unit steps inside."""
    if tensor.numel() == 0:
        return np.empty(0, tensor.detach().numpy().dtype)
    span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.detach().as_strided((span,), (1,)).numpy()


def _for_rows(kernel: Callable[..., None], logits: Tensor, *arguments: Any) -> None:
    """Runs the kernel over all rows, in as many threads as pay and as torch would use.

    Threads take shares of rows until none is left, and nobody waits for a thread that has not begun: on a busy machine
    the caller does the work itself.
    """
    rows = logits.shape[0]
    work = rows * logits.shape[1] * max(logits.shape[2], 1)
    threads = max(1, min(torch.get_num_threads(), work // MIN_LOGITS_PER_THREAD))
    if threads == 1:
        kernel(*arguments, 0, rows)
        return
    step = math.ceil(rows / (SHARES_PER_THREAD * threads))
    begins = iter(range(0, rows, step))

    def take_shares() -> None:
        for begin in begins:
            kernel(*arguments, begin, min(begin + step, rows))

    helpers = [_thread_pool(os.getpid()).submit(take_shares) for _ in range(threads - 1)]
    take_shares()
    for helper in helpers:
        if not helper.cancel():
            helper.result()


@functools.cache
def _thread_pool(pid: int) -> ThreadPoolExecutor:
    """One pool a process: threads do not survive a fork, so a forked child makes its own."""
    del pid
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="pbm-ops")
