"""The learner's losses, pure functions of tensors. Each is a mean over its rows, in the direction of descent.

Shapes: N rows, E experts, A actions. The losses on experts and router are in docs/algorithm.md, with their formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from polybeast_moe import _C
from polybeast_moe.config import RewardConfig
from polybeast_moe.ops import sparsemax
from polybeast_moe.ops.mixture import Routing

_NO_PREFERENCE = 0.01  # length of an expert's centred logits below which they hardly point anywhere


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
    """Returns the reward that the learner sees, [T, B]: as it is, clamp(r/scale, −1, 1), tanh or symlog of r/scale.

    symlog(x) = sign(x) ln(1 + |x|) (Hafner et al. 2023): small rewards keep their proportions, large ones still grow.
    """
    if config.transform == "none":
        return reward
    scaled = reward / config.scale
    if config.transform == "clip":
        return scaled.clamp(-1, 1)
    return torch.tanh(scaled) if config.transform == "tanh" else scaled.sign() * scaled.abs().log1p()


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
    """Advantages [T, B] with mean 0 and deviation 1 over the rows of all ranks.

    `over_ranks` as in `load_balance_loss`.
    """
    moments = over_ranks(first_two_moments(advantages))
    deviation = (moments[1] - moments[0].square()).clamp(min=0).sqrt()
    return ((advantages.double() - moments[0]) / (deviation + 1e-6)).to(advantages.dtype)


def first_two_moments(values: Tensor) -> Tensor:
    """[2] float64: the means of the values and of their squares."""
    exact = values.double()
    return torch.stack([exact.mean(), exact.square().mean()])


def load_balance_loss(
    router_scores: Tensor, temperature: float = 1.0, over_ranks: Callable[[Tensor], Tensor] = lambda usage: usage
) -> Tensor:
    """τ (E · Σ p̄² − 1) with p̄ the mean over states of softmax(scores / τ): 0 when every expert is used alike.

    The mean is over the states of all ranks: `over_ranks` makes it of each rank's own.

    It acts on the scores [N, E] before the projection: an expert off sparsemax's support gets no gradient through
    alpha, and could otherwise never come back. The factor τ keeps its strength the same at every temperature.
    """
    usage = over_ranks(torch.softmax(router_scores / temperature, dim=-1).mean(0))
    return temperature * (router_scores.shape[-1] * usage.square().sum() - 1)


def alpha_entropy_bonus(router_scores: Tensor, temperature: float) -> Tensor:
    """Mean entropy in nats of softmax(scores / temperature), to be raised; scores [N, E].

    It acts on the scores: where sparsemax gives one expert everything, the entropy of alpha has no gradient at all.
    """
    log_weights = torch.log_softmax(router_scores / temperature, dim=-1)
    return policy_entropy(log_weights)


def fenchel_young(router_scores: Tensor, target: Tensor, temperature: float, routing: Routing) -> Tensor:
    """Fenchel-Young loss (Blondel et al. 2020) of each row [N]: 0 where the routing gives `target` [N, E], else more.

    τ (Ω*(s/τ) + Ω(q) − ⟨s/τ, q⟩), the target q held constant, with Ω = ½‖·‖² for sparsemax and the negative entropy
    for softmax, where it is τ KL(q ‖ softmax(s/τ)). Its gradient on the scores is alpha − q, also off the support.
    """
    target, z = target.detach(), router_scores / temperature
    if routing == "softmax":
        conjugate, own = torch.logsumexp(z, dim=-1), torch.xlogy(target, target).sum(-1)
    else:
        alpha = sparsemax(z.detach())  # by the envelope theorem a constant
        conjugate, own = (alpha * z).sum(-1) - 0.5 * alpha.square().sum(-1), 0.5 * target.square().sum(-1)
    return temperature * (conjugate + own - (z * target).sum(-1))


def graph_alignment_loss(router_scores: Tensor, prior: Tensor, temperature: float, routing: Routing) -> Tensor:
    """Mean Fenchel-Young loss of the scores [N, E] against what the operator prior [N, E] alone would route to."""
    z = prior.detach() / temperature
    target = torch.softmax(z, dim=-1) if routing == "softmax" else sparsemax(z)
    return fenchel_young(router_scores, target, temperature, routing).mean()


def temporal_consistency_loss(
    router_scores: Tensor,
    alpha: Tensor,
    first: Tensor,
    temperature: float,
    routing: Routing,
    over_ranks: Callable[[Tensor], Tensor] = lambda pairs: pairs,
) -> Tensor:
    """Mean over neighbouring steps of one episode of the Fenchel-Young losses of each against the other's alpha.

    Shapes [T, B, E]; `first` [T, B] is True where an episode begins: no pair reaches over it. 0 where there is no pair.
    The pairs are those of all ranks, `over_ranks` as in `load_balance_loss`.
    """
    before, after = router_scores[:-1], router_scores[1:]
    pairs = (~first[1:]).to(router_scores.dtype)
    change = fenchel_young(after, alpha[:-1], temperature, routing) + fenchel_young(
        before, alpha[1:], temperature, routing
    )
    most = max(1, pairs.numel())  # goes with the frames of a rank, as its share does
    return (0.5 * change * pairs).sum() / most / over_ranks(pairs.sum() / most).clamp(min=1e-9)


def expert_diversity(expert_logits: Tensor) -> Tensor:
    """Mean Jensen-Shannon divergence of the experts' policies on the same state, to be raised; logits [N, E, A].

    H(mean_e π_e) − mean_e H(π_e) in nats: 0 where all experts say the same, at most ln E. Alpha has no part in it.
    """
    log_policies = torch.log_softmax(expert_logits, dim=-1)
    log_mean = torch.logsumexp(log_policies, dim=1) - math.log(expert_logits.shape[1])
    return policy_entropy(log_mean) - policy_entropy(log_policies)


def semantic_orthogonality_loss(expert_logits: Tensor) -> Tensor:
    """Mean squared cosine between what two experts prefer in the same state, their logits [N, E, A] less their mean.

    0 where every two experts weigh the actions independently of each other, 1 where all agree or oppose each other.
    Lengths below `_NO_PREFERENCE` count less, so that experts without a preference are not torn apart.
    """
    preferences = expert_logits - expert_logits.mean(-1, keepdim=True)
    directions = preferences * (preferences.square().sum(-1, keepdim=True) + _NO_PREFERENCE**2).rsqrt()
    cosines = directions @ directions.transpose(1, 2)
    experts = expert_logits.shape[1]
    squares = cosines.square().sum((1, 2)) - cosines.diagonal(dim1=1, dim2=2).square().sum(-1)
    return squares.mean() / max(1, experts * (experts - 1))


def overlap_loss(alpha: Tensor, expert_logits: Tensor) -> Tensor:
    """Mean of Σ_{i≠j} α_i α_j BC(π_i, π_j): how much experts share a state and say the same; [N, E], [N, E, A].

    BC = Σ_a √(π_i π_j) is the Bhattacharyya coefficient, 1 for equal policies. 0 where one expert has all the weight,
    at most 1 − 1/E. Experts without weight have no part in it, so that they need not have run.
    """
    roots = torch.exp(0.5 * torch.log_softmax(expert_logits, dim=-1))
    agreement = roots @ roots.transpose(1, 2)
    together = (alpha.unsqueeze(1) @ agreement @ alpha.unsqueeze(2)).flatten()
    return (together - alpha.square().sum(-1)).mean()


def spread(moments: Tensor) -> Tensor:
    """Variance of states over their mean squared length, from their moments [hidden + 1] (`PolicyOutput`).

    0 where all states are alike, at most 1.
    """
    return 1 - moments[:-1].square().sum() / moments[-1].clamp(min=1e-12)


def explained_variance(values: Tensor, targets: Tensor) -> Tensor:
    """1 − Var(vs − V) / Var(vs), values and targets [T, B]: 1 for a perfect baseline, 0 for a constant one."""
    return 1 - (targets - values).var(correction=0) / targets.var(correction=0).clamp(min=1e-8)
