"""Rows of measurements as figures: medians over rounds, ratios round by round, scores over seeds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from results import Measured, spread
from scipy import stats

from peers.scores import score_at

Row = Mapping[str, Any]
UNKNOWN = Measured(math.nan, math.nan, math.nan)


def finished(rows: Sequence[Row], arm: str) -> dict[int, Row]:
    """An arm's rows by round, without those that failed."""
    return {row["index"]: row for row in rows if row["arm"] == arm and row["status"] == "finished"}


def figures(rows: Sequence[Row], arm: str, key: str) -> Measured:
    """The median over rounds, the least and the greatest; unknown without any."""
    values = [row[key] for row in finished(rows, arm).values()]
    return spread(values) if values else UNKNOWN


def ratios(rows: Sequence[Row], over: str, under: str, key: str = "frames_per_second") -> Measured:
    """The spread of the rounds' own ratios, of the rounds that both have."""
    above, below = finished(rows, over), finished(rows, under)
    found = [above[index][key] / below[index][key] for index in sorted(above.keys() & below.keys())]
    return spread(found) if found else UNKNOWN


def best_per_round(rows: Sequence[Row], arms: Sequence[str], name: str) -> list[Row]:
    """Rows of an arm `name` that is in each round the fastest of these."""
    indices = sorted({index for arm in arms for index in finished(rows, arm)})
    candidates = [[found[index] for arm in arms if index in (found := finished(rows, arm))] for index in indices]
    return [{**max(those, key=lambda row: row["frames_per_second"]), "arm": name} for those in candidates]


def mean_over_seeds(values: Sequence[float]) -> Measured:
    """The mean and Student's 95 % interval; one seed has none."""
    if not values:
        return UNKNOWN
    mean = float(np.mean(values))
    if len(values) < 2:
        return Measured(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Measured(mean, mean - half, mean + half)


def ratio_of_means(over: Sequence[float], under: Sequence[float]) -> Measured:
    """A ratio of two means over seeds and its 95 % interval, by the delta method on its logarithm.

    The degrees of freedom are Welch's. Unknown where a mean is not positive; no interval for a single seed.
    """
    if not over or not under or np.mean(over) <= 0 or np.mean(under) <= 0:
        return UNKNOWN
    ratio = float(np.mean(over) / np.mean(under))
    if min(len(over), len(under)) < 2:
        return Measured(ratio, math.nan, math.nan)
    parts = [float(np.var(x, ddof=1) / len(x) / np.mean(x) ** 2) for x in (over, under)]
    if sum(parts) == 0:
        return Measured(ratio, ratio, ratio)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (over, under), strict=True))
    half = float(stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts)))
    return Measured(ratio, ratio * math.exp(-half), ratio * math.exp(half))


def last_scores(rows: Sequence[Row], arm: str) -> list[float]:
    """An arm's scores when the time was up, a seed each."""
    return [row["curve"][-1]["score"] for _, row in sorted(finished(rows, arm).items())]


def equal_frames(rows: Sequence[Row], arms: Sequence[str]) -> float:
    """Frames that every seed of these arms has consumed; 0 where one has no rows."""
    ends = [[row["curve"][-1]["frames"] for row in finished(rows, arm).values()] for arm in arms]
    return min(min(end) for end in ends) if all(ends) else 0.0


def scores_at(rows: Sequence[Row], arm: str, frames: float) -> list[float]:
    """An arm's scores after so many frames, a seed each."""
    return [score_at(row["curve"], frames) for _, row in sorted(finished(rows, arm).items())]


def worst_ratio(rows: Sequence[Row], ours: str, peers: Sequence[str], *, at_equal_frames: bool) -> Measured:
    """Our score over that of the peer that does best against us, when the time is up or at the pair's equal frames."""
    found = []
    for peer in peers:
        if at_equal_frames:
            frames = equal_frames(rows, [ours, peer])
            both = scores_at(rows, ours, frames), scores_at(rows, peer, frames)
        else:
            both = last_scores(rows, ours), last_scores(rows, peer)
        ratio = ratio_of_means(*both)
        if not math.isnan(ratio.value):
            found.append(ratio)
    return min(found, default=UNKNOWN)
