"""The bound on router scores and its gradient."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from polybeast_moe.models.router import INWARD_GRADIENT, bounded


@given(st.floats(-1e30, 1e30), st.floats(0.1, 10.0))
def test_scores_stay_within_the_bound(score: float, bound: float) -> None:
    assert bounded(torch.tensor([score]), bound).abs().item() <= bound * (1 + 1e-6)


def test_gradient_is_tanhs_where_tanh_is_not_flat() -> None:
    scores = torch.linspace(-1.5, 1.5, 20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: bounded(s, 1.0), scores)
    assert torch.autograd.gradcheck(lambda s: bounded(s, 0.9), scores)


def test_gradient_leads_back_from_the_bound_and_not_away_from_it() -> None:
    scores = torch.tensor([50.0, 50.0, -50.0, -50.0], requires_grad=True)
    descent = torch.tensor([1.0, -1.0, 1.0, -1.0])  # lower, raise, lower, raise
    bounded(scores, 1.0).backward(descent)
    assert scores.grad is not None
    torch.testing.assert_close(scores.grad, torch.tensor([INWARD_GRADIENT, 0.0, 0.0, -INWARD_GRADIENT]))


def test_descent_brings_a_saturated_score_back() -> None:
    score = torch.tensor([30.0], requires_grad=True)
    optimizer = torch.optim.SGD([score], lr=1.0)
    for _ in range(500):
        optimizer.zero_grad()
        (bounded(score, 1.0) + 0.5).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(bounded(score, 1.0).detach(), torch.tensor([-0.5]), atol=1e-3, rtol=0)
