"""The mixture of experts: every backend is the reference, and the reference is the definition."""

from __future__ import annotations

import math
import subprocess
import sys
import threading

import pytest
import torch
from entmax import sparsemax as entmax_sparsemax
from torch import Tensor

from polybeast_moe.errors import UserError
from polybeast_moe.ops import ExpertMixture, expert_mixture
from polybeast_moe.ops.mixture import Routing

ROUTINGS: tuple[Routing, ...] = ("sparsemax", "softmax")


def inputs(n: int, e: int, a: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, e, generator=generator, dtype=torch.float64).to(dtype)
    return scores, torch.randn(n, e, a, generator=generator, dtype=torch.float64).to(dtype)


def with_gradients(
    scores: Tensor, logits: Tensor, temperature: float, routing: Routing, backend: str
) -> tuple[ExpertMixture, tuple[Tensor, Tensor]]:
    """The mixture, and the gradients of a fixed function of all three of its parts."""
    scores, logits = scores.detach().requires_grad_(), logits.detach().requires_grad_()
    out = expert_mixture(scores, logits, temperature, routing=routing, backend=backend)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(9)
    loss = sum((part * torch.randn(part.shape, generator=generator).to(part.dtype)).sum() for part in out)
    gradients = torch.autograd.grad(loss, (scores, logits))  # type: ignore[arg-type]
    return out, gradients


@pytest.mark.parametrize("routing", ROUTINGS)
def test_reference_gradients_are_the_derivatives(routing: Routing) -> None:
    scores, logits = inputs(5, 4, 3, torch.float64)
    assert torch.autograd.gradcheck(
        lambda s, x: tuple(expert_mixture(s, x, 0.7, routing=routing, backend="torch")),
        (scores.requires_grad_(), logits.requires_grad_()),
    )


@pytest.mark.parametrize("routing", ROUTINGS)
def test_reference_is_the_definition(routing: Routing) -> None:
    scores, logits = inputs(40, 6, 5, torch.float64)
    out = expert_mixture(scores, logits, 0.4, routing=routing, backend="torch")
    alpha = entmax_sparsemax(scores / 0.4, dim=-1) if routing == "sparsemax" else torch.softmax(scores / 0.4, -1)
    torch.testing.assert_close(out.alpha, alpha)
    torch.testing.assert_close(out.logits, torch.einsum("ne,nea->na", alpha, logits))
    torch.testing.assert_close(out.entropy, torch.special.entr(alpha).sum(-1))


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (7, 1, 23), (97, 4, 23), (31, 13, 17), (5, 64, 121), (3, 61, 256), (0, 4, 23)]
)
def test_fused_is_the_reference(fused_backend: str, shape: tuple[int, int, int], routing: Routing) -> None:
    for temperature in (1e-3, 0.2, 1.0, 50.0):
        scores, logits = inputs(*shape)
        reference, reference_gradients = with_gradients(scores, logits, temperature, routing, "torch")
        fused, gradients = with_gradients(scores, logits, temperature, routing, fused_backend)
        assert torch.equal(fused.alpha > 0, reference.alpha > 0)
        for ours, theirs in zip(fused, reference, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=2e-5)
        for ours, theirs in zip(gradients, reference_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=2e-5 / min(temperature, 1.0), rtol=2e-5)


@pytest.mark.parametrize("routing", ROUTINGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_fused_is_the_reference_in_other_dtypes(fused_backend: str, dtype: torch.dtype, routing: Routing) -> None:
    scores, logits = inputs(53, 5, 11, dtype)
    reference, reference_gradients = with_gradients(scores, logits, 0.5, routing, "torch")
    fused, gradients = with_gradients(scores, logits, 0.5, routing, fused_backend)
    for ours, theirs in zip((*fused, *gradients), (*reference, *reference_gradients), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, theirs)
    mixed = expert_mixture(scores.float(), logits, 0.5, routing=routing, backend=fused_backend)
    assert (mixed.logits.dtype, mixed.alpha.dtype, mixed.entropy.dtype) == (dtype, torch.float32, torch.float32)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_strides_do_not_matter(backend: str, routing: Routing) -> None:
    scores, logits = inputs(19, 6, 7)
    expected, expected_gradients = with_gradients(scores, logits, 0.5, routing, backend)
    padded = torch.zeros(19, 12, 14)
    padded[:, ::2, ::2] = logits
    layouts = {
        "experts first": (scores.t().contiguous().t(), logits.transpose(0, 1).contiguous().transpose(0, 1)),
        "actions first": (scores, logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)),
        "every second": (torch.cat([scores, scores])[:19], padded[:, ::2, ::2]),
    }
    for strided_scores, strided_logits in layouts.values():
        out, gradients = with_gradients(strided_scores, strided_logits, 0.5, routing, backend)
        for ours, theirs in zip((*out, *gradients), (*expected, *expected_gradients), strict=True):
            torch.testing.assert_close(ours, theirs)
    shared = logits[:1].expand(19, 6, 7)
    dense = with_gradients(scores, shared.contiguous(), 0.5, routing, backend)
    torch.testing.assert_close(with_gradients(scores, shared, 0.5, routing, backend), dense)


def test_gradients_are_finite_and_zero_off_the_support(backend: str) -> None:
    scores = torch.tensor([[9.0, 0.0, -torch.inf, 0.0], [1.0, 1.0, -torch.inf, -5.0], [0.1, 0.0, 0.2, -torch.inf]])
    logits = torch.randn(3, 4, 5)
    for routing in ROUTINGS:
        out, (to_scores, to_logits) = with_gradients(scores, logits, 0.5, routing, backend)
        off = out.alpha == 0
        assert off[0, 2]
        assert to_scores.isfinite().all()
        assert out.entropy.isfinite().all()
        assert not to_scores[off].any()
        assert not to_logits[off].any()
        torch.testing.assert_close(to_scores.sum(-1), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_temperature_goes_from_one_hot_to_uniform(backend: str, routing: Routing) -> None:
    scores, logits = inputs(30, 4, 3)
    cold = expert_mixture(scores, logits, 1e-30, routing=routing, backend=backend)
    best = scores.argmax(-1)
    torch.testing.assert_close(cold.alpha, torch.nn.functional.one_hot(best, 4).float())
    torch.testing.assert_close(cold.logits, logits[torch.arange(30), best])
    torch.testing.assert_close(cold.entropy, torch.zeros(30))
    hot = expert_mixture(scores, logits, 1e9, routing=routing, backend=backend)
    torch.testing.assert_close(hot.alpha, torch.full((30, 4), 0.25))
    torch.testing.assert_close(hot.entropy, torch.full((30,), math.log(4)))


@pytest.mark.parametrize("routing", ROUTINGS)
def test_huge_scores_do_not_overflow_and_shifts_change_nothing(backend: str, routing: Routing) -> None:
    scores, logits = inputs(30, 4, 3, torch.float64)
    huge = expert_mixture(scores * 1e4 + 3e38, logits, 1e-4, routing=routing, backend=backend)
    assert all(part.isfinite().all() for part in huge)
    torch.testing.assert_close(huge.alpha.sum(-1), torch.ones(30, dtype=torch.float64))
    plain = expert_mixture(scores, logits, 0.3, routing=routing, backend=backend)
    shifted = expert_mixture(scores - 100.0, logits, 0.3, routing=routing, backend=backend)
    torch.testing.assert_close(shifted.alpha, plain.alpha)


def test_a_temperature_in_a_tensor_is_a_constant(backend: str) -> None:
    scores, logits = inputs(6, 4, 3)
    temperature = torch.tensor(0.25, requires_grad=True)
    out = expert_mixture(scores, logits, temperature, backend=backend)
    torch.testing.assert_close(out.alpha, expert_mixture(scores, logits, 0.25, backend=backend).alpha)
    assert not out.logits.requires_grad


def test_many_rows_shared_among_threads_and_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    from polybeast_moe.ops import fused_numba

    monkeypatch.setattr(fused_numba, "MIN_LOGITS_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    scores, logits = inputs(1009, 4, 5)
    expected, expected_gradients = with_gradients(scores, logits, 0.5, "sparsemax", "torch")
    failures: list[BaseException] = []

    def call() -> None:
        try:
            for _ in range(20):
                out, gradients = with_gradients(scores, logits, 0.5, "sparsemax", "numba")
                torch.testing.assert_close((*out, *gradients), (*expected, *expected_gradients), atol=1e-5, rtol=1e-5)
        except BaseException as error:
            failures.append(error)

    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def test_auto_is_numba_on_the_cpu_and_torch_where_numba_has_no_room() -> None:
    from polybeast_moe.ops.backends import select_mixture

    cpu = torch.device("cpu")
    assert select_mixture("auto", cpu, 4).__module__ == "polybeast_moe.ops.fused_numba"
    assert select_mixture("auto", cpu, 65).__module__ == "polybeast_moe.ops.reference"
    assert select_mixture("auto", torch.device("meta"), 4).__module__ == "polybeast_moe.ops.reference"


def test_an_unavailable_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    scores, logits = inputs(2, 4, 3)
    with pytest.raises(UserError, match=r"'triton' is not available: it runs on CUDA"):
        expert_mixture(scores, logits, 1.0, backend="triton")
    with pytest.raises(UserError, match=r"'jax' is not available: there is none of that name"):
        expert_mixture(scores, logits, 1.0, backend="jax")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="at most 64 experts, not 65"):
        expert_mixture(*inputs(2, 65, 3), 1.0, backend="numba")


def test_a_backend_that_cannot_be_imported_says_so_and_auto_goes_on() -> None:
    program = """
import sys
sys.modules["numba"] = None
import torch
from polybeast_moe.errors import UserError
from polybeast_moe.ops import sparsemax
print(sparsemax(torch.tensor([1.0, 0.0])).tolist())
try:
    sparsemax(torch.zeros(2), backend="numba")
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[1.0, 0.0]\nops backend 'numba' is not available: it cannot be imported")


def test_importing_ops_loads_no_compiler() -> None:
    program = "import sys, polybeast_moe.ops; print([m for m in ('numba', 'triton') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_refuses_what_does_not_fit() -> None:
    scores, logits = inputs(2, 4, 3)
    with pytest.raises(ValueError, match=r"expert_logits must be \[N, E, A\]"):
        expert_mixture(scores, logits[:, :3], 1.0)
    with pytest.raises(ValueError, match=r"router_scores must be \[N, E\]"):
        expert_mixture(scores[0], logits, 1.0)
    with pytest.raises(ValueError, match="routing must be"):
        expert_mixture(scores, logits, 1.0, routing="top2")  # type: ignore[arg-type]
    for temperature in (0.0, -1.0, math.inf, math.nan, torch.tensor(0.0)):
        with pytest.raises(ValueError, match="positive and finite"):
            expert_mixture(scores, logits, temperature)
