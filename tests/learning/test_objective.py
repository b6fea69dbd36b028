"""The losses of a batch are those of its parts, weighted by their shares: what ranks rest on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor

from polybeast_moe.learning.objective import ActorCritic, objective, shared_means
from polybeast_moe.learning.phases import LossSettings, Settings
from polybeast_moe.models import PolicyOutput

T, E, A, HIDDEN = 6, 4, 5, 3
PARTS = (5, 3)  # games of each rank
NOTHING = LossSettings(**{loss.name: 0.0 for loss in fields(LossSettings)})
LOSSES = [loss.name for loss in fields(LossSettings) if loss.name != "extra"]  # that one is the user's

OverRanks = Callable[[Tensor], Tensor]


class Rows:
    """What a policy might say of [T + 1, B] rows; of each part something else, so that no two parts are alike."""

    def __init__(self, games: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64) + seed

        self.scores = torch.tanh(draw(T + 1, games, E) * (1.0 + torch.arange(E)) / 4)
        self.logits, self.log_policy = draw(T + 1, games, E, A), torch.log_softmax(draw(T, games, A), -1)
        self.values, self.targets, self.advantages = draw(T, games), draw(T, games), draw(T, games)
        self.first = torch.rand(T + 1, games, generator=generator) < 0.2 + 0.5 * seed
        self.moments = torch.cat([draw(HIDDEN), draw(1).square() + 10]) + seed

    def beside(self, other: Rows, share: float) -> Rows:
        both = object.__new__(Rows)
        for name, value in vars(self).items():
            setattr(both, name, torch.cat([value, vars(other)[name]], dim=1) if value.ndim > 1 else None)
        both.moments = share * self.moments + (1 - share) * other.moments
        return both

    def inputs(self) -> list[Tensor]:
        return [self.scores, self.logits, self.log_policy, self.values]

    def objective(self, settings: Settings, over_ranks: OverRanks) -> dict[str, Tensor]:
        flat = self.scores.flatten(0, 1)
        alpha = torch.softmax(flat / settings.temperature, -1)
        entropy = -(alpha * alpha.log()).sum(-1)
        logits = self.logits.flatten(0, 1)
        output = PolicyOutput(
            logits[:, 0], flat[:, 0], alpha, flat, entropy, logits, None, None, torch.sin(9 * flat), self.moments
        )
        actor_critic = ActorCritic(self.log_policy, self.log_policy[..., 0], self.values, self.targets, self.advantages)
        return objective(actor_critic, output, self.first, settings, over_ranks)


@pytest.mark.parametrize("name", LOSSES)
def test_parts_of_a_batch_add_up_to_the_whole_of_it(name: str) -> None:
    """Values and gradients, for parts of unequal size that differ in everything that a loss could depend on."""
    weights = replace(NOTHING, **{name: 0.7})
    settings = Settings("only", 0, "softmax", 0.5, 1e-3, weights)
    shares = [games / sum(PARTS) for games in PARTS]
    parts = [Rows(games, seed) for seed, games in enumerate(PARTS)]
    whole = parts[0].beside(parts[1], shares[0])
    for rows in (*parts, whole):
        for value in rows.inputs():
            value.requires_grad_()

    own: list[list[Tensor]] = [[], []]
    for rows, taken in zip(parts, own, strict=True):
        rows.objective(settings, lambda mean, taken=taken: (taken.append(mean.detach()), mean)[1])
    assert [[tuple(mean.shape) for mean in taken] for taken in own] == [shared_means(weights, E, HIDDEN)] * 2
    pooled = [sum(share * mean for share, mean in zip(shares, means, strict=True)) for means in zip(*own, strict=True)]

    total = torch.zeros((), dtype=torch.float64)
    for rows, share in zip(parts, shares, strict=True):
        shared = iter(pooled)
        loss = rows.objective(settings, lambda mean, shared=shared: mean + (next(shared) - mean).detach())[name]
        total = total + share * loss
    expected = whole.objective(settings, lambda mean: mean)[name]
    assert expected != 0
    torch.testing.assert_close(total, expected)

    if name == "graph_smoothing":  # of the moments alone, which have no rows here
        return
    total.backward()
    expected.backward()
    for one, other, both in zip(*(rows.inputs() for rows in (*parts, whole)), strict=True):
        if both.grad is not None:
            torch.testing.assert_close(torch.cat([one.grad, other.grad], dim=1), both.grad)
