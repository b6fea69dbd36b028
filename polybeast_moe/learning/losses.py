"""The learner's losses, pure functions of tensors. Each is a mean over its rows, in the direction of descent."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from polybeast_moe import _C
from polybeast_moe.config import RewardConfig


def training_reward(reward: Tensor, terms: Tensor | None, weights: Mapping[str, float]) -> Tensor:
    """Σ w_i · r_i over the task's reward [T, B] and the engine's reward terms [T, B, terms], before any transform.

    Args:
        reward: the task's; its weight is that of `task`.
        terms: columns in the order of `_C.REWARD_TERMS`; None where rollouts do not store them.
        weights: by name; a name that is missing weighs 0.

    Raises:
        ValueError: a term has a weight, and rollouts do not store terms.
    """
    task = weights.get("task", 0.0)
    total = reward if task == 1.0 else task * reward
    columns = [weights.get(name, 0.0) for name in _C.REWARD_TERMS]
    if not any(columns):
        return total
    if terms is None:
        raise ValueError("these rollouts store no reward terms: no phase weighed any when the run began")
    return total + terms @ terms.new_tensor(columns)


def transform_reward(reward: Tensor, config: RewardConfig) -> Tensor:
    """Returns the reward that the learner sees: as it is, clamp(r/scale, −1, 1), or tanh(r/scale)."""
    if config.transform == "none":
        return reward
    scaled = reward / config.scale
    return scaled.clamp(-1, 1) if config.transform == "clip" else torch.tanh(scaled)


def policy_gradient_loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """−mean(advantage · log π(a|s)), advantages held constant (Espeholt et al. 2018, section 4.2). Shapes [T, B]."""
    return -(advantages.detach() * log_probs).mean()


def baseline_loss(values: Tensor, targets: Tensor) -> Tensor:
    """½ mean (V − vs)², the targets held constant. Shapes [T, B]."""
    return 0.5 * F.mse_loss(values, targets.detach())


def policy_entropy(log_policy: Tensor) -> Tensor:
    """Mean entropy of the policy in nats; `log_policy` [..., A] is normalised."""
    return -(log_policy.exp() * log_policy).sum(-1).mean()


def normalised(advantages: Tensor, over_ranks: Callable[[Tensor], Tensor] = lambda moments: moments) -> Tensor:
    """Advantages with mean 0 and deviation 1 over the rows of all ranks; `over_ranks` as in `load_balance_loss`."""
    moments = over_ranks(first_two_moments(advantages))
    deviation = (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    return ((advantages.double() - moments[0]) / (deviation + 1e-6)).to(advantages.dtype)


def first_two_moments(values: Tensor) -> Tensor:
    """[2] float64: the means of the values and of their squares."""
    exact = values.double()
    return torch.stack([exact.mean(), exact.square().mean()])


def load_balance_loss(router_scores: Tensor, over_ranks: Callable[[Tensor], Tensor] = lambda usage: usage) -> Tensor:
    """E · Σ p̄² − 1 with p̄ the mean over states of softmax(scores); 0 when every expert is used alike, at most E − 1.

    The mean is over the states of all ranks: `over_ranks` makes it of each rank's own.

    It acts on the scores [N, E] before the projection: an expert off sparsemax's support gets no gradient through
    alpha, and could otherwise never come back.
    """
    usage = over_ranks(torch.softmax(router_scores, dim=-1).mean(0))
    return router_scores.shape[-1] * usage.square().sum() - 1


def explained_variance(values: Tensor, targets: Tensor) -> Tensor:
    """1 − Var(vs − V) / Var(vs): 1 for a perfect baseline, 0 for a constant one."""
    return 1 - (targets - values).var(correction=0) / targets.var(correction=0).clamp(min=1e-8)
