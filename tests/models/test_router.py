"""Router scores: their bound and its gradient, which of them count, and routers that learn nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from small import policy_of

from polybeast_moe.config import RouterConfig, RunConfig
from polybeast_moe.models import Observation
from polybeast_moe.models.router import INWARD_GRADIENT, Router, SceneRouter, best, bounded
from polybeast_moe.ops import expert_mixture

MakeConfig = Callable[..., RunConfig]
Observe = Callable[..., Observation]


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


def test_a_frozen_router_tells_states_apart_and_nothing_learns_through_it() -> None:
    router = Router(RouterConfig(kind="frozen", operator_prior=False), features=24, experts=4)
    features = torch.randn(256, 24, requires_grad=True)
    scores = router(features)
    assert scores.std(dim=0).min() > 0.2  # a learned one begins at about 0.01
    assert not scores.requires_grad
    assert not any(parameter.requires_grad for parameter in router.parameters())
    assert Router(RouterConfig(), features=24, experts=4)(features).requires_grad


def test_only_the_best_scores_count() -> None:
    scores = torch.tensor([[0.1, 0.4, -0.3, 0.4], [0.0, -1.0, 0.9, 0.5]], requires_grad=True)
    counted = best(scores, 2)
    infinite = float("inf")
    torch.testing.assert_close(
        counted.detach(),
        torch.tensor([[-infinite, 0.4, -infinite, 0.4], [-infinite, -infinite, 0.9, 0.5]]),
    )
    assert best(scores, None) is scores
    softmax = expert_mixture(counted, torch.randn(2, 4, 3), 1.0, routing="softmax")
    torch.testing.assert_close(softmax.alpha[0].detach(), torch.tensor([0.0, 0.5, 0.0, 0.5]))
    softmax.logits.sum().backward()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
    assert torch.equal(scores.grad != 0, torch.tensor([[False, True, False, True], [False, False, True, True]]))


def test_equal_scores_leave_as_many_as_are_kept() -> None:
    assert (best(torch.zeros(5, 4), 2) == 0).sum(-1).tolist() == [2] * 5


def test_the_scene_router_gives_each_scene_its_expert() -> None:
    glyphs = torch.full((2, 21, 79), 2378, dtype=torch.int16)  # a floor without end: nothing to explore
    blstats = torch.zeros(2, 27, dtype=torch.int64)
    blstats[:, [0, 1, 10, 11, 21]] = torch.tensor([40, 10, 14, 14, 1])
    blstats[1, 10] = 4  # few hit points
    router = SceneRouter(RouterConfig(kind="scenes", operator_prior=False, score_bound=2.0))
    assert router(glyphs, blstats).tolist() == [[-2.0, -2.0, -2.0, 2.0], [2.0, -2.0, -2.0, -2.0]]
    assert not list(router.parameters())


def test_a_router_cannot_scale_a_temperature_away(make_config: MakeConfig, observe: Observe) -> None:
    """Scores within [-1, 1] differ by at most 2; four experts stay in sparsemax's support while 2 / tau <= 1 / 4."""
    policy = policy_of(make_config())
    assert policy.router is not None
    with torch.no_grad():
        policy.router.last.weight *= 1000
    output = policy(observe(256), routing="sparsemax", temperature=8.0)
    assert output.router_scores.abs().max() == 1.0
    assert output.router_scores.std() > 0.5  # at the bound on both sides
    assert (output.alpha > 0).all()
    output.alpha[:, 0].sum().backward()
    assert policy.router.last.weight.grad is not None
    assert policy.router.last.weight.grad.abs().max() > 1e-3


def test_a_hard_coded_router_reads_the_map_and_a_kept_pair_shares_the_work(
    make_config: MakeConfig, observe: Observe
) -> None:
    hard = {"kind": "scenes", "operator_prior": False}
    policy = policy_of(make_config(policy={"router": hard}, env={"store_glyphs": True}))
    observation = observe(8)
    with pytest.raises(ValueError, match="glyphs"):
        policy(observation)
    observation = observation._replace(glyphs=torch.full((8, 21, 79), 2378, dtype=torch.int16))
    observation.blstats[:, [10, 11, 21]] = torch.tensor([14, 14, 1])
    observation.blstats[:, 25] = torch.tensor([0, 8] * 4)  # every second one is food poisoned
    alpha = policy(observation, routing="sparsemax", temperature=0.5).alpha
    assert alpha.tolist() == [[0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0]] * 4

    pair = policy_of(make_config(policy={"router": {"keep": 2}}))
    output = pair(observation, routing="softmax")
    assert ((output.alpha > 0).sum(1) == 2).all()
    assert output.router_scores.isfinite().all()  # losses may still act on all


@pytest.mark.parametrize(
    ("policy", "env", "message"),
    [
        ({"router": {"kind": "frozen"}}, {}, "operator_prior: false"),
        ({"router": {"kind": "scenes", "operator_prior": False}}, {}, "store_glyphs"),
        ({"router": {"kind": "scenes", "operator_prior": False}, "experts": ["a", "b"]}, {}, "needs the experts"),
        ({"router": {"keep": 5}}, {}, "more than there are experts"),
    ],
)
def test_routers_that_cannot_be_are_refused(make_config: MakeConfig, policy, env, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make_config(policy=policy, env=env)
