"""V-trace targets (Espeholt et al. 2018, "IMPALA", arXiv 1802.01561, section 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class VTrace(NamedTuple):
    """Targets of the learner's losses, detached."""

    vs: Tensor
    """[T, ...]: value targets."""
    pg_advantages: Tensor
    """[T, ...]: advantages of the policy gradient, already weighted by the clipped importance ratio."""


@torch.no_grad()
def vtrace(
    behaviour_log_probs: Tensor,
    target_log_probs: Tensor,
    discounts: Tensor,
    rewards: Tensor,
    values: Tensor,
    bootstrap_value: Tensor,
    *,
    clip_rho: float = 1.0,
    clip_c: float = 1.0,
    clip_pg_rho: float = 1.0,
) -> VTrace:
    """Off-policy corrected value targets and advantages; no gradient flows through them.

    With ratios r_t = exp(target - behaviour), rho_t = min(clip_rho, r_t), c_t = min(clip_c, r_t):

        vs_t          = V_t + rho_t (reward_t + discount_t V_{t+1} - V_t) + discount_t c_t (vs_{t+1} - V_{t+1})
        pg_advantage_t = min(clip_pg_rho, r_t) (reward_t + discount_t vs_{t+1} - V_t)

    The function knows nothing of episodes but the discounts. At a termination the discount is 0. At a truncation the
    caller passes `reward + gamma * V(final observation)` as the reward and 0 as the discount: the return is then
    bootstrapped from the final observation, and nothing of the next episode leaks into it.

    Args:
        behaviour_log_probs: [T, ...] log-probability of each action taken, under the policy that took it.
        target_log_probs: [T, ...] the same under the policy being learnt.
        discounts: [T, ...] gamma, 0 where an episode ended.
        rewards: [T, ...].
        values: [T, ...] V of the observations at which the actions were chosen.
        bootstrap_value: [...] V of the observation after the last step.
        clip_rho: bound of the ratios in the temporal differences, rho-bar.
        clip_c: bound of the ratios that carry them on, c-bar. On policy with all bounds at 1 or above, vs is the n-step
            return; with clip_c < 1, the lambda-return with lambda = clip_c.
        clip_pg_rho: bound of the ratios of the policy gradient.

    Raises:
        ValueError: shapes that differ.
    """
    shape = rewards.shape
    for name, tensor in (
        ("behaviour_log_probs", behaviour_log_probs),
        ("target_log_probs", target_log_probs),
        ("discounts", discounts),
        ("values", values),
    ):
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, rewards {tuple(shape)}")
    if bootstrap_value.shape != shape[1:]:
        raise ValueError(f"bootstrap_value must have shape {tuple(shape[1:])}, got {tuple(bootstrap_value.shape)}")

    ratios = torch.exp(target_log_probs - behaviour_log_probs)
    traces = discounts * ratios.clamp(max=clip_c)
    next_values = torch.cat([values[1:], bootstrap_value.unsqueeze(0)])
    deltas = ratios.clamp(max=clip_rho) * (rewards + discounts * next_values - values)

    corrections = torch.empty_like(deltas)  # vs - values
    correction = torch.zeros_like(bootstrap_value, dtype=deltas.dtype)
    for t in range(shape[0] - 1, -1, -1):
        correction = torch.addcmul(deltas[t], traces[t], correction)
        corrections[t] = correction
    vs = values + corrections
    next_vs = torch.cat([vs[1:], bootstrap_value.unsqueeze(0).to(vs.dtype)])
    pg_advantages = ratios.clamp(max=clip_pg_rho) * (rewards + discounts * next_vs - values)
    return VTrace(vs, pg_advantages)
