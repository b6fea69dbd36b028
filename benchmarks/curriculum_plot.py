"""The drawing of docs/results/curriculum.md: scores while training, and of held-out episodes by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from curriculum_plan import Plan
from results import Measured

from polybeast_moe.evaluation.plotting import GREY, LINES, colour, from_zero, side_by_side

DOTS_PER_INCH = 100  # the file stays below 150 KB


def draw(
    plan: Plan,
    rows: Mapping[str, list[dict[str, Any]]],
    scores: Mapping[str, Sequence[float]],
    means: Mapping[str, Measured],
    file: Path,
) -> None:
    """Draws the finished runs `rows` of each arm into a PNG file: mean held-out `scores` a seed, `means` of these."""
    figure, (curves, dots) = side_by_side(2, 4.4)
    for index, arm in enumerate(arm for arm in plan.arms if rows[arm.name]):
        own, style = rows[arm.name], {"color": colour(index), "linestyle": LINES[index // 7 % len(LINES)]}
        shortest = min(len(row["curve"]["score"]) for row in own)
        mean = np.mean([row["curve"]["score"][:shortest] for row in own], axis=0)
        curves.plot(own[0]["curve"]["episode"][:shortest], mean, linewidth=1.3, label=arm.name, **style)
        values = scores[arm.name]
        dots.plot(values, [-index] * len(values), ".", color=colour(index), alpha=0.6)
        mean_score = means[arm.name]
        dots.plot(mean_score.value, -index, "|", color=colour(index), markersize=14, markeredgewidth=2)
        dots.plot([mean_score.low, mean_score.high], [-index, -index], color=colour(index), linewidth=1)
    names = [arm.name for arm in plan.arms if rows[arm.name]]
    dots.set_yticks([-index for index in range(len(names))], names, fontsize=8)
    dots.grid(axis="x", color=GREY, linewidth=0.3)
    dots.set_xlabel(f"mean score of {plan.episodes:,} held-out episodes, by seed")
    curves.set_xlabel("episodes of training")
    curves.set_ylabel("mean score while training (points)")
    from_zero(curves)
    curves.legend(fontsize=7, frameon=False, loc="upper left")
    figure.savefig(file, dpi=DOTS_PER_INCH, metadata={"Software": None})
