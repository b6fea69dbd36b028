"""What episodes say of a policy: scores, how sure they are, what they are made of, how games end, who did the work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from polybeast_moe.config import RunConfig
from polybeast_moe.evaluation.endings import count_deaths, ending
from polybeast_moe.evaluation.play import GAMES, ActingPolicy, Change, Moment, Played, play_episodes
from polybeast_moe.evaluation.score import score_parts
from polybeast_moe.evaluation.statistics import (
    Floats,
    bootstrap,
    entropy,
    interquartile_mean,
    resampled_counts,
    standard_error,
)
from polybeast_moe.ops.mixture import Routing

Figures = dict[str, Any]


def evaluate_policy(
    policy: ActingPolicy | None,
    config: RunConfig,
    routing: Routing,
    temperature: float,
    episodes: int,
    seed: int,
    *,
    greedy: bool = False,
    games: int = GAMES,
    change: Change | None = None,
    watch: Callable[[Moment], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> tuple[Figures, Played] | None:
    """Plays held-out episodes under a run's own protocol and returns their figures: see `figures_of`.

    For training too: nothing of the policy changes, and the games are no run's. `policy` None plays at random. The
    other arguments are `play_episodes`'.

    Returns:
        The figures and what was played; None when interrupted.
    """
    played = play_episodes(
        policy,
        config.env,
        episodes=episodes,
        seed=seed,
        routing=routing,
        temperature=temperature,
        greedy=greedy,
        games=games,
        change=change,
        watch=watch,
        progress=progress,
        interrupted=interrupted,
    )
    if played is None:
        return None
    return figures_of(played, config.policy.expert_names if policy is not None else ()), played


def figures_of(played: Played, experts: Sequence[str] = ()) -> Figures:
    """Returns what the episodes say, as JSON holds it; docs/evaluation.md lists every figure."""
    score, depth, length = played.column("score"), played.column("depth"), played.column("length")
    parts = score_parts(score, depth, played.column("gold"))
    average, middle = bootstrap(score), bootstrap(score, interquartile_mean)
    spread = float(np.std(score, ddof=1)) if len(score) > 1 else None
    low, median, high = (float(value) for value in np.percentile(score, [25, 50, 75]))
    frames = int(length.sum())
    figures: Figures = {
        "episodes": len(score),
        "seed": played.seed,
        "mean_score": average.value,
        "standard_error": standard_error(score),
        "mean_score_interval": [average.low, average.high],
        "median_score": median,
        "score_quartiles": [low, high],
        "interquartile_mean": middle.value,
        "interquartile_mean_interval": [middle.low, middle.high],
        "score_sd": spread,
        "score_cv": spread / average.value if spread is not None and average.value > 0 else None,
        "max_score": float(score.max()),
        "score_parts": {name: float(part.mean()) for name, part in parts.items()},
        "mean_return": float(played.column("return").mean()),
        "mean_length": float(length.mean()),
        "mean_depth": float(depth.mean()),
        "max_depth": int(depth.max()),
        "ends": _ends(played),
        "deaths": count_deaths((int(one["how_done"]), str(one.get("death", ""))) for one in played.records),
        "frames": frames,
        "frames_per_second": frames / played.seconds if played.seconds > 0 else None,
    }
    return figures | (_routing_figures(played, experts) if played.alpha is not None else {})


def _ends(played: Played) -> dict[str, int]:
    counted = Counter(ending(int(how)) for how in played.column("how_done"))
    return dict(counted.most_common())


def _routing_figures(played: Played, experts: Sequence[str]) -> Figures:
    """Entropies over all states of all episodes, in nats, and the experts' shares, with intervals by episode."""
    assert played.alpha is not None
    length = played.column("length")
    sums = np.column_stack([played.alpha, played.column("alpha_entropy") * length, length])  # [episodes, E + 2]
    shares = played.alpha.sum(axis=0) / length.sum()
    intervals = _by_episode(sums)
    names = list(experts) if len(experts) == len(shares) else [str(i) for i in range(len(shares))]
    alpha_entropy = float(sums[:, -2].sum() / length.sum())
    usage = float(entropy(shares))
    return {
        "alpha_entropy": alpha_entropy,
        "alpha_entropy_interval": intervals[0],
        "usage_entropy": usage,
        "usage_entropy_interval": intervals[1],
        "routing_information": usage - alpha_entropy,
        "routing_information_interval": intervals[2],
        "expert_shares": dict(zip(names, shares.tolist(), strict=True)),
        "smallest_share": float(shares.min()),
    }


def _by_episode(sums: Floats, resamples: int = 1000) -> list[list[float]]:
    """95 % intervals of alpha entropy, usage entropy and routing information, episodes drawn with replacement.

    A ratio of sums: an episode counts by its steps.
    """
    totals = resampled_counts(len(sums), resamples) @ sums  # [resamples, E + 2]
    alpha = totals[:, -2] / totals[:, -1]
    usage = entropy(totals[:, :-2] / totals[:, -1:])
    return [np.percentile(figure, [2.5, 97.5]).tolist() for figure in (alpha, usage, usage - alpha)]
