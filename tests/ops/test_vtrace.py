"""V-trace: the recursion equals the O(T^2) definition, whatever the episodes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polybeast_moe.ops import vtrace


def definition(
    log_ratios: Tensor, discounts: Tensor, rewards: Tensor, values: Tensor, bootstrap: Tensor,
    clip_rho: float, clip_c: float, clip_pg_rho: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Equation 1 of the IMPALA paper, term by term, for one game [T]."""
    steps = len(rewards)
    ratios = log_ratios.exp()
    rho, c, pg_rho = (ratios.clamp(max=clip) for clip in (clip_rho, clip_c, clip_pg_rho))
    following = torch.cat([values[1:], bootstrap.reshape(1)])
    vs = torch.zeros_like(values)
    for s in range(steps):
        vs[s] = values[s]
        for t in range(s, steps):
            trace = torch.prod(discounts[s:t]) * torch.prod(c[s:t])
            vs[s] += trace * rho[t] * (rewards[t] + discounts[t] * following[t] - values[t])
    next_vs = torch.cat([vs[1:], bootstrap.reshape(1)])
    return vs, pg_rho * (rewards + discounts * next_vs - values)


clips = st.sampled_from([0.3, 1.0, 1.7, float("inf")])


@given(
    steps=st.integers(1, 12), games=st.integers(1, 4), seed=st.integers(0, 999),
    off_policy=st.sampled_from([0.0, 0.5, 3.0]), clip_rho=clips, clip_c=clips, clip_pg_rho=clips,
)  # fmt: skip
@settings(max_examples=60)
def test_is_the_definition_over_several_episodes_and_truncations(
    steps: int, games: int, seed: int, off_policy: float, clip_rho: float, clip_c: float, clip_pg_rho: float
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(steps, games, dtype=torch.float64, generator=generator)

    behaviour, target, rewards, values, final_values = draw(), draw() * off_policy, draw(), draw(), draw()
    bootstrap, gamma = draw()[0], 0.97
    ends = torch.rand(steps, games, generator=generator)
    terminated, truncated = ends < 0.15, ends > 0.85
    folded = rewards + torch.where(truncated, gamma * final_values, 0.0)
    discounts = gamma * (~(terminated | truncated)).double()
    target = behaviour + target
    out = vtrace(
        behaviour,
        target,
        discounts,
        folded,
        values,
        bootstrap,
        clip_rho=clip_rho,
        clip_c=clip_c,
        clip_pg_rho=clip_pg_rho,
    )
    for game in range(games):
        # each episode by itself, with the bootstrap that its end calls for
        begin = 0
        for t in range(steps):
            last = t == steps - 1
            if not (terminated[t, game] or truncated[t, game] or last):
                continue
            piece = (slice(begin, t + 1), game)
            begin = t + 1
            end_value = final_values[t, game] if truncated[t, game] else bootstrap[game]
            end_value = end_value * (not terminated[t, game])
            vs, advantages = definition(
                (target - behaviour)[piece], torch.full_like(rewards[piece], gamma), rewards[piece], values[piece],
                end_value, clip_rho, clip_c, clip_pg_rho,
            )  # fmt: skip
            torch.testing.assert_close(out.vs[piece], vs)
            torch.testing.assert_close(out.pg_advantages[piece], advantages)


@given(steps=st.integers(1, 15), seed=st.integers(0, 999), decay=st.sampled_from([0.0, 0.5, 0.95, 1.0]))
@settings(max_examples=40)
def test_on_policy_is_the_lambda_return(steps: int, seed: int, decay: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    log_probs, rewards, values = (torch.randn(steps, 3, dtype=torch.float64, generator=generator) for _ in range(3))
    bootstrap, discounts = torch.randn(3, dtype=torch.float64, generator=generator), torch.full_like(rewards, 0.9)
    out = vtrace(log_probs, log_probs, discounts, rewards, values, bootstrap, clip_c=decay)
    following = torch.cat([values[1:], bootstrap[None]])
    expected = bootstrap
    for t in reversed(range(steps)):
        expected = rewards[t] + 0.9 * ((1 - decay) * following[t] + decay * expected)
        torch.testing.assert_close(out.vs[t], expected)


def test_nothing_crosses_an_episode_end() -> None:
    zeros = torch.zeros(6, 1)
    discounts = torch.tensor([0.9, 0.9, 0.0, 0.9, 0.9, 0.9])[:, None]
    before = vtrace(zeros, zeros, discounts, zeros + 1, zeros, torch.zeros(1))
    after = vtrace(
        zeros, zeros, discounts, zeros + torch.arange(6)[:, None].ge(3) * 50 + 1, zeros, torch.full((1,), 99.0)
    )
    torch.testing.assert_close(after.vs[:3], before.vs[:3])
    torch.testing.assert_close(before.vs[:3, 0], torch.tensor([2.71, 1.9, 1.0]))


def test_targets_carry_no_gradient_and_huge_ratios_stay_finite() -> None:
    behaviour = torch.full((4, 2), -100.0)
    target = torch.zeros(4, 2, requires_grad=True)
    values = torch.zeros(4, 2, requires_grad=True)
    out = vtrace(behaviour, target, torch.ones(4, 2), torch.ones(4, 2), values, torch.zeros(2))
    assert not out.vs.requires_grad
    assert not out.pg_advantages.requires_grad
    torch.testing.assert_close(out.vs[:, 0], torch.tensor([4.0, 3.0, 2.0, 1.0]))


def test_refuses_shapes_that_differ() -> None:
    steps = torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"values has shape \(5, 2\)"):
        vtrace(steps, steps, steps, steps, torch.zeros(5, 2), torch.zeros(2))
    with pytest.raises(ValueError, match=r"bootstrap_value must have shape \(2,\)"):
        vtrace(steps, steps, steps, steps, steps, torch.zeros(1, 2))
