"""Sparsemax is the Euclidean projection onto the simplex, in every backend."""

from __future__ import annotations

import pytest
import torch
from entmax import sparsemax as entmax_sparsemax
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polybeast_moe.ops import sparsemax


def projection_by_bisection(z: Tensor) -> Tensor:
    """The definition: max(z - tau, 0) with the tau that makes it sum to one, found by halving an interval."""
    z = z.double() - z.double().amax(-1, keepdim=True)
    low, high = torch.full_like(z[..., :1], -1.0), torch.zeros_like(z[..., :1])
    for _ in range(100):
        middle = (low + high) / 2
        too_much = (z - middle).clamp(min=0).sum(-1, keepdim=True) > 1
        low, high = torch.where(too_much, middle, low), torch.where(too_much, high, middle)
    return (z - high).clamp(min=0)


ADVERSARIAL = {
    "ties": torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.5, 0.5, -3.0, -3.0], [2.0, 2.0, 2.0, 2.0]]),
    "huge": torch.randn(50, 7, generator=torch.Generator().manual_seed(1)) * 1e4,
    "subnormal": torch.tensor([[1e-40, 2e-40, -1e-42], [0.0, 1e-45, -1e-45]]),
    "one entry": torch.tensor([[3.0], [-1e30], [0.0]]),
    "masked": torch.tensor([[0.3, -torch.inf, 0.1, -torch.inf], [-torch.inf, -torch.inf, 5.0, -torch.inf]]),
    "near threshold": torch.tensor([[0.0, -0.5, -0.75 + d] for d in (-1e-6, -6e-8, 0.0, 6e-8, 1e-6)]),
    "prime size": torch.randn(101, 61, generator=torch.Generator().manual_seed(2)),
}


@pytest.mark.parametrize("case", ADVERSARIAL)
def test_is_the_projection_onto_the_simplex(backend: str, case: str) -> None:
    scores = ADVERSARIAL[case]
    alpha = sparsemax(scores, backend=backend)
    expected = projection_by_bisection(scores)
    torch.testing.assert_close(alpha.double(), expected, atol=1e-7, rtol=0)
    torch.testing.assert_close(alpha.sum(-1), torch.ones(len(scores)), atol=5e-7, rtol=0)
    assert torch.equal(alpha > 0, sparsemax(scores, backend="torch") > 0)
    assert torch.equal(alpha > 0, expected > 1e-12)


def test_a_score_on_the_threshold_is_off_the_support(backend: str) -> None:
    scores = torch.tensor([[0.0, -0.5, -0.75], [0.0, -1.0, -1.0]])
    assert torch.equal(sparsemax(scores, backend=backend), torch.tensor([[0.75, 0.25, 0.0], [1.0, 0.0, 0.0]]))


def test_a_weight_of_rounding_size_is_none(backend: str) -> None:
    """Else the order of a sum would decide which expert runs."""
    scores = torch.tensor([[0.0, -0.5, -0.75 + d] for d in (1.5e-13, 1.5e-10)], dtype=torch.float64)
    support = sparsemax(scores, backend=backend) > 0
    assert support.tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize("case", [name for name in ADVERSARIAL if name != "masked"])
def test_agrees_with_entmax_in_value_and_gradient(backend: str, case: str) -> None:
    ours = ADVERSARIAL[case].double().requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    weights = torch.randn(ours.shape, dtype=torch.float64)
    alpha, expected = sparsemax(ours, backend=backend), entmax_sparsemax(theirs, dim=-1)
    torch.testing.assert_close(alpha, expected, atol=1e-11, rtol=0)
    (alpha * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_reference_gradient_is_the_derivative() -> None:
    scores = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: sparsemax(s, backend="torch"), scores)
    assert torch.autograd.gradcheck(lambda s: sparsemax(s, dim=0, backend="torch"), scores)


@given(
    rows=st.integers(1, 9), size=st.integers(1, 64), scale=st.sampled_from([1e-3, 1.0, 30.0]), seed=st.integers(0, 99)
)
@settings(max_examples=40)
def test_properties(backend: str, rows: int, size: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = (torch.randn(rows, size, dtype=torch.float64, generator=generator) * scale).requires_grad_()
    alpha = sparsemax(scores, backend=backend)
    torch.testing.assert_close(alpha, sparsemax(scores + 7.0, backend=backend))  # shifts change nothing
    torch.testing.assert_close(alpha, projection_by_bisection(scores.detach()), atol=1e-11, rtol=0)
    order = torch.randperm(size, generator=generator)
    torch.testing.assert_close(alpha[:, order], sparsemax(scores[:, order], backend=backend))
    (gradient,) = torch.autograd.grad((alpha * torch.randn_like(alpha)).sum(), scores)
    assert not gradient[alpha == 0].any()
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(rows, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_shape_dim_stride_and_dtype(backend: str, dtype: torch.dtype) -> None:
    scores = torch.randn(5, 3, 8, 2, dtype=dtype)[:, :, ::2]
    for dim in (0, 1, 2, -1):
        alpha = sparsemax(scores, dim, backend=backend)
        assert alpha.dtype == dtype
        assert alpha.shape == scores.shape
        expected = projection_by_bisection(scores.movedim(dim, -1)).movedim(-1, dim).to(dtype)
        torch.testing.assert_close(alpha, expected)
    assert sparsemax(scores[:0], backend=backend).shape == (0, 3, 4, 2)
    assert sparsemax(scores[0, 0, :, 0], backend=backend).shape == (4,)


def test_undefined_rows_are_nan_and_leave_the_others_alone(backend: str) -> None:
    inf, nan = torch.inf, torch.nan
    alpha = sparsemax(
        torch.tensor([[0.0, nan, 1.0], [-inf, -inf, -inf], [inf, 0.0, 1.0], [2.0, 0.0, 0.0]]), backend=backend
    )
    assert alpha[:3].isnan().all()
    assert torch.equal(alpha[3], torch.tensor([1.0, 0.0, 0.0]))


def test_more_entries_than_the_fused_backends_take() -> None:
    scores = torch.randn(3, 500)
    torch.testing.assert_close(sparsemax(scores).double(), projection_by_bisection(scores), atol=1e-6, rtol=0)


def test_refuses_what_has_no_projection() -> None:
    with pytest.raises(ValueError, match="at least one score"):
        sparsemax(torch.zeros(3, 0))
    with pytest.raises(ValueError, match="int64"):
        sparsemax(torch.zeros(3, 2, dtype=torch.int64))
