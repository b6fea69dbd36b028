"""The losses on experts and router: which way each pushes, also where alpha is sparse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polybeast_moe.learning import losses
from polybeast_moe.ops import sparsemax
from polybeast_moe.ops.mixture import Routing

N, E, A = 6, 4, 5
ROUTINGS: tuple[Routing, ...] = ("softmax", "sparsemax")
TEMPERATURES = st.floats(0.05, 5.0)
SEEDS = st.integers(0, 2**31)


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    values = scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.requires_grad_()


def routed(scores: Tensor, temperature: float, routing: Routing) -> Tensor:
    z = scores / temperature
    return torch.softmax(z, -1) if routing == "softmax" else sparsemax(z)


def descended(parameters: Tensor, loss, steps: int = 200, rate: float = 0.05) -> Tensor:
    """What gradient descent on `loss` makes of the parameters."""
    parameters = parameters.detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([parameters], lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(parameters).backward()
        optimizer.step()
    return parameters.detach()


# One expert has everything, by a lead far above the temperature: alpha has no gradient.
ONE_HOT = torch.tensor([[1.0, 0.0, -0.5, -1.0]] * 3, dtype=torch.float64)


# Alpha entropy


def test_the_bonus_on_alpha_entropy_reaches_experts_that_sparsemax_has_shut_out() -> None:
    scores = ONE_HOT.clone().requires_grad_()
    (-losses.alpha_entropy_bonus(scores, 0.3)).backward()
    assert (scores.grad[:, 0] > 0).all()  # descent lowers the leader
    assert (scores.grad[:, 1:] < 0).all()
    raised = descended(scores, lambda s: -losses.alpha_entropy_bonus(s, 0.3))
    entropy = -torch.xlogy(alpha := sparsemax(raised / 0.3), alpha).sum(-1)
    assert (entropy > 1.3).all()


# The Fenchel-Young loss


@given(SEEDS, SEEDS, TEMPERATURES, st.sampled_from(ROUTINGS))
def test_the_fenchel_young_loss_is_least_where_the_routing_gives_its_target(seed, other, temperature, routing) -> None:
    scores, target = draw(N, E, seed=seed), routed(draw(N, E, seed=other), temperature, routing)
    loss = losses.fenchel_young(scores, target, temperature, routing)
    assert (loss >= -1e-9).all()
    own = losses.fenchel_young(scores, routed(scores, temperature, routing), temperature, routing)
    assert own.tolist() == pytest.approx([0.0] * N, abs=1e-9)
    loss.sum().backward()
    assert torch.allclose(scores.grad, (routed(scores, temperature, routing) - target).detach(), atol=1e-9)


def test_the_fenchel_young_loss_of_softmax_is_a_kl_divergence() -> None:
    scores, target = draw(N, E), torch.softmax(draw(N, E, seed=1), -1)
    kl = torch.nn.functional.kl_div(torch.log_softmax(scores / 0.7, -1), target, reduction="none").sum(-1)
    assert torch.allclose(losses.fenchel_young(scores, target, 0.7, "softmax"), 0.7 * kl)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_the_target_is_held_constant(routing: Routing) -> None:
    scores, target = draw(N, E), draw(N, E, seed=1)
    losses.fenchel_young(scores, torch.softmax(target, -1), 1.0, routing).sum().backward()
    assert target.grad is None


# Alignment


@pytest.mark.parametrize("routing", ROUTINGS)
def test_alignment_leads_a_one_hot_router_to_what_the_graph_asks_for(routing: Routing) -> None:
    prior = torch.tensor([[-1.0, -1.0, 1.0, 0.9]] * 3, dtype=torch.float64, requires_grad=True)
    losses.graph_alignment_loss(scores := ONE_HOT.clone().requires_grad_(), prior, 0.3, routing).backward()
    assert (scores.grad[:, 2:] < 0).all()  # off the support, and yet they rise
    assert prior.grad is None
    aligned = descended(ONE_HOT, lambda s: losses.graph_alignment_loss(s, prior, 0.3, routing))
    assert torch.allclose(routed(aligned, 0.3, routing), routed(prior, 0.3, routing), atol=0.02)


# Temporal consistency

NEW_EPISODE = torch.tensor([[True, False], [False, False], [False, True], [False, False]])


def consistency(scores: Tensor, first: Tensor = NEW_EPISODE, routing: Routing = "sparsemax") -> Tensor:
    return losses.temporal_consistency_loss(scores, routed(scores, 0.3, routing), first, 0.3, routing)


@pytest.mark.parametrize("routing", ROUTINGS)
def test_neighbouring_steps_of_an_episode_come_to_route_alike(routing: Routing) -> None:
    scores = draw(4, 2, E)
    alpha = routed(descended(scores, lambda s: consistency(s, routing=routing)), 0.3, routing)
    assert torch.allclose(alpha[1:, 0], alpha[:-1, 0], atol=0.02)
    assert torch.allclose(alpha[1, 1], alpha[0, 1], atol=0.02)
    assert torch.allclose(alpha[3, 1], alpha[2, 1], atol=0.02)
    assert not torch.allclose(alpha[2, 1], alpha[1, 1], atol=0.05)  # an episode begins at 2


def test_two_one_hot_steps_with_different_experts_are_drawn_together() -> None:
    scores = torch.stack([ONE_HOT[:1], ONE_HOT[:1].flip(-1)]).requires_grad_()
    consistency(scores, torch.zeros(2, 1, dtype=torch.bool)).backward()
    assert scores.grad[0, 0].tolist() == [0.5, 0.0, 0.0, -0.5]
    assert scores.grad[1, 0].tolist() == [-0.5, 0.0, 0.0, 0.5]


@given(SEEDS)
def test_nothing_of_one_episode_pulls_at_another(seed: int) -> None:
    scores = draw(4, 2, E, seed=seed)
    consistency(scores).backward()
    later = scores.detach().clone()
    later[2:, 1] = -later[2:, 1]
    consistency(later.requires_grad_()).backward()
    assert torch.equal(scores.grad[:2, 1], later.grad[:2, 1])


def test_without_neighbours_consistency_is_zero() -> None:
    scores = draw(4, 2, E)
    everywhere = torch.ones(4, 2, dtype=torch.bool)
    consistency(scores, everywhere).backward()
    assert consistency(scores, everywhere).item() == 0.0
    assert not scores.grad.any()
    assert consistency(draw(1, 2, E), everywhere[:1]).item() == 0.0


# Experts


def test_diversity_is_the_jensen_shannon_divergence() -> None:
    logits = draw(N, E, A)
    policies = torch.softmax(logits, -1)
    mean = policies.mean(1, keepdim=True)
    js = (policies * (policies / mean).log()).sum(-1).mean()
    assert losses.expert_diversity(logits).item() == pytest.approx(js.item())
    assert losses.expert_diversity(logits[:, :1].expand(-1, E, -1)).item() == pytest.approx(0.0, abs=1e-12)
    apart = 50 * torch.eye(E, A, dtype=torch.float64).expand(N, -1, -1)
    assert losses.expert_diversity(apart).item() == pytest.approx(math.log(E))


def test_a_bonus_on_diversity_drives_experts_apart() -> None:
    logits = draw(N, E, A, scale=0.01)
    apart = descended(logits, lambda x: -losses.expert_diversity(x))
    assert losses.expert_diversity(apart) > 0.9 * math.log(E)


@given(SEEDS)
def test_orthogonality_lies_between_unrelated_and_equal_experts(seed: int) -> None:
    logits = draw(N, E, A, seed=seed)
    assert 0 <= losses.semantic_orthogonality_loss(logits).item() <= 1
    same = logits[:, :1].expand(-1, E, -1)
    assert losses.semantic_orthogonality_loss(same).item() == pytest.approx(1, rel=1e-2)
    assert losses.semantic_orthogonality_loss(same + 7.0).item() == pytest.approx(1, rel=1e-2)  # logits have no zero
    assert losses.semantic_orthogonality_loss(torch.cat([same[:, :2], -same[:, 2:]], 1)).item() == pytest.approx(
        1, rel=1e-2
    )  # opposites are not unrelated
    assert losses.semantic_orthogonality_loss(torch.zeros(N, E, A)).item() == 0


def test_descent_on_orthogonality_makes_preferences_unrelated() -> None:
    logits = draw(N, 1, A) + 0.2 * draw(N, E, A, seed=1)
    before = losses.semantic_orthogonality_loss(logits).item()
    after = losses.semantic_orthogonality_loss(descended(logits, losses.semantic_orthogonality_loss)).item()
    assert before > 0.8
    assert after < 0.01


def test_overlap_is_shared_weight_times_agreement() -> None:
    logits, alpha = draw(N, E, A), torch.softmax(draw(N, E, seed=1), -1)
    policies = torch.softmax(logits, -1)
    by_hand = 0.0
    for i in range(E):
        for j in range(E):
            if i != j:
                by_hand += (alpha[:, i] * alpha[:, j] * (policies[:, i] * policies[:, j]).sqrt().sum(-1)).mean()
    assert losses.overlap_loss(alpha, logits).item() == pytest.approx(by_hand.item())
    even = torch.full((N, E), 1 / E, dtype=torch.float64)
    same = logits[:, :1].expand(-1, E, -1)
    assert losses.overlap_loss(even, same).item() == pytest.approx(1 - 1 / E)


def test_descent_on_overlap_separates_experts_that_share_a_state_or_stops_them_sharing_it() -> None:
    even = torch.full((N, E), 1 / E, dtype=torch.float64)
    logits = draw(N, E, A, scale=0.1)
    apart = descended(logits, lambda x: losses.overlap_loss(even, x))
    assert losses.overlap_loss(even, apart) < 0.1 * losses.overlap_loss(even, logits)
    same = logits.detach()[:, :1].expand(-1, E, -1)
    scores = draw(N, E, scale=0.1)
    alpha = sparsemax(descended(scores, lambda s: losses.overlap_loss(sparsemax(s), same)))
    assert (alpha.max(-1).values > 0.99).all()


def test_experts_without_weight_have_no_part_in_the_overlap() -> None:
    alpha = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64)
    logits = draw(1, E, A)
    whole = losses.overlap_loss(alpha, logits)
    assert losses.overlap_loss(alpha, logits * torch.tensor([1, 1, 0, 0])[None, :, None]).item() == whole.item()
    whole.backward()
    assert logits.grad[:, :2].any()
    assert not logits.grad[:, 2:].any()


@pytest.mark.parametrize(
    "loss",
    [losses.expert_diversity, losses.semantic_orthogonality_loss, lambda x: losses.overlap_loss(torch.ones(N, 1), x)],
)
def test_one_expert_alone_has_nobody_to_differ_from(loss) -> None:
    logits = draw(N, 1, A).float()
    assert loss(logits).item() == pytest.approx(0.0, abs=1e-6)
