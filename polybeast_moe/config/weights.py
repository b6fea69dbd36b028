"""What a phase weighs: the losses, and the terms of the training reward."""

from __future__ import annotations

from typing import Literal

from polybeast_moe.config.base import Section
from polybeast_moe.config.schedules import Schedule, Weight, ends


class AlphaEntropyLoss(Section):
    """A penalty on (minimize) or bonus for (maximize) the mean alpha entropy."""

    weight: Weight
    direction: Literal["minimize", "maximize"] = "minimize"


class LossWeights(Section):
    """Weights of the losses in a phase; each may be a constant or a schedule over the phase."""

    policy: Weight = 1.0
    baseline: Weight = 0.5
    entropy: Weight = 0.01
    alpha_entropy: AlphaEntropyLoss | None = None
    load_balance: Weight = 0.0
    expert_diversity: Weight = 0.0
    semantic_orthogonality: Weight = 0.0
    graph_alignment: Weight = 0.0
    temporal_consistency: Weight = 0.0
    overlap: Weight = 0.0
    graph_smoothing: Weight = 0.0
    extra: Weight = 0.0
    """Of `learner.extra_loss`."""

    def schedules(self) -> dict[str, Schedule]:
        """Returns the weight of every loss by name; that of alpha entropy without its direction."""
        plain = {name: getattr(self, name) for name in type(self).model_fields if name != "alpha_entropy"}
        return {**plain, "alpha_entropy": self.alpha_entropy.weight if self.alpha_entropy is not None else 0.0}


class RewardWeights(Section):
    """Weights of the training reward: the task's reward, and the engine's reward terms (docs/vector_env.md).

    Each may be below zero, a constant or a schedule over the phase.
    """

    task: Schedule = 1.0
    score: Schedule = 0.0
    gold: Schedule = 0.0
    experience_points: Schedule = 0.0
    new_deepest_level: Schedule = 0.0
    new_experience_level: Schedule = 0.0
    new_squares: Schedule = 0.0
    hit_points: Schedule = 0.0
    hunger: Schedule = 0.0
    eaten: Schedule = 0.0
    armour_class: Schedule = 0.0
    only_prompt: Schedule = 0.0
    death: Schedule = 0.0

    def uses_terms(self) -> bool:
        """Whether anything but the task's reward ever has a weight: then rollouts store the terms."""
        return any(ends(getattr(self, term)) != (0.0, 0.0) for term in type(self).model_fields if term != "task")
