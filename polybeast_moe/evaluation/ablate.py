"""Specialisation by intervention: what a policy's score loses by each change, beside a perturbation of equal size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from polybeast_moe.errors import UserError
from polybeast_moe.evaluation.evaluate import evaluate_policy
from polybeast_moe.evaluation.interventions import Gauged, KnockOut, ShuffleGates, WithoutGraph, all_experts
from polybeast_moe.evaluation.play import GAMES, Change, Played
from polybeast_moe.evaluation.statistics import Floats, bootstrap
from polybeast_moe.evaluation.trained import TrainedPolicy
from polybeast_moe.models.policy import GraphMoEPolicy

Progress = Callable[[str], Callable[[int, int], None]]
"""Given what is played next, returns what `play_episodes` reports to."""


def changes(trained: TrainedPolicy) -> dict[str, Callable[[], Change]]:
    """Returns every change that this policy can undergo, by name; each call makes a fresh one.

    Raises:
        UserError: a policy with one expert, or of a class whose experts cannot all be run.
    """
    policy, experts = trained.policy, trained.config.policy.expert_names
    if len(experts) < 2:
        raise UserError(f"snapshot {trained.path}: --ablate needs several experts, this policy has one")
    if not isinstance(policy, GraphMoEPolicy):
        raise UserError(f"snapshot {trained.path}: --ablate knows GraphMoEPolicy, not {type(policy).__name__}")
    found: dict[str, Callable[[], Change]] = {
        f"without {name}": partial(KnockOut, expert, trained.routing, trained.temperature, policy.keep)
        for expert, name in enumerate(experts)
    }
    found["gates shuffled within scenes"] = partial(ShuffleGates, within=True)
    found["gates shuffled between scenes"] = partial(ShuffleGates, within=False)
    if policy.graph is not None:
        found["graph stream off"] = partial(WithoutGraph, policy)
    return found


def ablate(
    trained: TrainedPolicy,
    baseline: Played,
    *,
    greedy: bool = False,
    games: int = GAMES,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Plays the baseline's episodes again under every change, and under a perturbation of its size.

    Args:
        trained: the policy.
        baseline: its own episodes: the same games are played, so that differences are taken game by game.
        greedy: as the baseline took its actions.
        games: how many are played side by side.
        progress: told what is played next.

    Returns:
        By change: `mean_score`; `divergence`, mean KL from the policy in nats; `score_lost` to the baseline;
        `perturbation`, the same of noise of equal divergence; `beyond_perturbation`, what the change cost more than
        that. Losses have `value`, `low` and `high`, a paired 95 % bootstrap over episodes.
    """
    base = baseline.column("score")
    found = {}
    with all_experts(trained.policy):
        for name, make in changes(trained).items():
            arms = []
            for perturb in (False, True):
                report = None if progress is None else progress(f"as much noise: {name}" if perturb else name)
                arms.append(_played(trained, baseline, Gauged(make(), perturb), greedy, games, report))
            (own, lost), (beside, also_lost) = arms
            found[name] = {
                **own,
                "score_lost": _interval(base - lost),
                "perturbation": {**beside, "score_lost": _interval(base - also_lost)},
                "beyond_perturbation": _interval(also_lost - lost),
            }
    return found


def _played(
    trained: TrainedPolicy,
    baseline: Played,
    change: Gauged,
    greedy: bool,
    games: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, float], Floats]:
    evaluated = evaluate_policy(
        trained.policy,
        trained.config,
        trained.routing,
        trained.temperature,
        len(baseline.records),
        baseline.seed,
        greedy=greedy,
        games=games,
        change=change,
        progress=progress,
    )
    assert evaluated is not None
    score = evaluated[1].column("score")
    return {"mean_score": float(score.mean()), "divergence": change.divergence}, score


def _interval(differences: Floats) -> dict[str, float]:
    found = bootstrap(differences)
    return {"value": found.value, "low": found.low, "high": found.high}
