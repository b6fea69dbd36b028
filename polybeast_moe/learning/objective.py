"""What an update minimises: the losses of a phase with their weights and signs. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from polybeast_moe.errors import UserError
from polybeast_moe.learning import losses
from polybeast_moe.learning.phases import LossSettings, Settings
from polybeast_moe.models.interface import PolicyOutput


class ActorCritic(NamedTuple):
    """What the three losses of the actor-critic are made of."""

    log_policy: Tensor
    """[T, B, A]: log-probabilities of all actions."""
    log_probs: Tensor
    """[T, B]: of the actions taken."""
    values: Tensor
    """[T, B]."""
    vs: Tensor
    """[T, B]: V-trace's targets."""
    advantages: Tensor
    """[T, B]."""


def compares_experts(weights: LossSettings) -> bool:
    """Whether the logits of experts without weight are needed."""
    return weights.expert_diversity != 0 or weights.semantic_orthogonality != 0


def shared_means(weights: LossSettings, experts: int, graph_hidden: int) -> list[tuple[int, ...]]:
    """Shapes of the means that `objective` takes over ranks, in its order: a rank without rows takes part in them."""
    shapes = {"load_balance": (experts,), "temporal_consistency": (), "graph_smoothing": (graph_hidden + 1,)}
    return [shape for name, shape in shapes.items() if getattr(weights, name)]


def objective(
    actor_critic: ActorCritic,
    output: PolicyOutput,
    first: Tensor,
    settings: Settings,
    over_ranks: Callable[[Tensor], Tensor] = lambda mean: mean,
) -> dict[str, Tensor]:
    """Returns every loss by name, 0-d, weighted and signed; one of no weight is 0 and costs nothing.

    Args:
        actor_critic: of the T steps of B games that are learnt from.
        output: the policy's, of (T + 1) * B rows; the last step's are not learnt from.
        first: [T + 1, B], True where an episode begins.
        settings: weights, routing and temperature of the phase.
        over_ranks: makes the mean over all ranks' rows of this rank's, where a loss is not linear in its rows:
            called as `shared_means` says.

    Raises:
        UserError: a loss on the operator prior or states has a weight, and the policy gives none.
    """
    weights = settings.losses
    log_policy, log_probs, values, vs, advantages = actor_critic
    return {
        "policy": weights.policy * losses.policy_gradient_loss(log_probs, advantages),
        "baseline": weights.baseline * losses.baseline_loss(values, vs),
        "entropy": -weights.entropy * losses.policy_entropy(log_policy),
        **_auxiliary(output, first, settings, over_ranks, rows=values.numel()),
    }


def _auxiliary(
    output: PolicyOutput, first: Tensor, settings: Settings, over_ranks: Callable[[Tensor], Tensor], rows: int
) -> dict[str, Tensor]:
    """The losses on experts and router, of the first `rows` rows."""
    weights, tau, routing = settings.losses, settings.temperature, settings.routing
    scores, alpha, logits = output.router_scores[:rows], output.alpha[:rows], output.expert_logits[:rows]
    first = first[:-1]

    def alpha_entropy() -> Tensor:
        lowers = weights.alpha_entropy > 0
        return output.alpha_entropy[:rows].mean() if lowers else losses.alpha_entropy_bonus(scores, tau)

    def graph_alignment() -> Tensor:
        if output.operator_prior is None:
            raise UserError("losses.graph_alignment has a weight, but the policy gives no operator_prior: set it to 0")
        return losses.graph_alignment_loss(scores, output.operator_prior[:rows], tau, routing)

    def temporal_consistency() -> Tensor:
        in_time = scores.view(*first.shape, -1), alpha.view(*first.shape, -1)
        return losses.temporal_consistency_loss(*in_time, first, tau, routing, over_ranks)

    def graph_smoothing() -> Tensor:
        if output.graph_moments is None:
            raise UserError("losses.graph_smoothing has a weight, but the policy gives no graph_moments: set it to 0")
        return 1 - losses.spread(over_ranks(output.graph_moments))

    terms: dict[str, tuple[float, Callable[[], Tensor]]] = {
        "alpha_entropy": (weights.alpha_entropy, alpha_entropy),
        "load_balance": (weights.load_balance, lambda: losses.load_balance_loss(scores, tau, over_ranks)),
        "expert_diversity": (-weights.expert_diversity, lambda: losses.expert_diversity(logits)),
        "semantic_orthogonality": (
            weights.semantic_orthogonality,
            lambda: losses.semantic_orthogonality_loss(logits),
        ),
        "graph_alignment": (weights.graph_alignment, graph_alignment),
        "temporal_consistency": (weights.temporal_consistency, temporal_consistency),
        "graph_smoothing": (weights.graph_smoothing, graph_smoothing),
        "overlap": (weights.overlap, lambda: losses.overlap_loss(alpha, logits)),
    }
    nothing = scores.new_zeros(())
    return {name: weight * term() if weight else nothing for name, (weight, term) in terms.items()}
