"""Figures over training seeds: Student's intervals, bootstraps, and arms compared by Welch's t-test after Holm."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from results import Measured
from scipy import stats

from polybeast_moe.evaluation.statistics import Statistic, bootstrap

LEVEL = 0.05


@dataclass(frozen=True)
class Comparison:
    """An arm's mean score less the reference arm's; `p` is corrected for the number of arms compared."""

    difference: Measured
    p: float

    @property
    def verdict(self) -> str:
        """In words."""
        if math.isnan(self.p):
            return "too few seeds to tell"
        if self.p >= LEVEL:
            return "no difference shown"
        return "better" if self.difference.value > 0 else "worse"

    @property
    def shown_p(self) -> str:
        """The p-value, `-` where there is none."""
        return "-" if math.isnan(self.p) else f"{self.p:.3g}"


def over_seeds(values: Sequence[float]) -> Measured:
    """Mean of one figure a seed, and Student's 95 % interval; a single seed has none."""
    mean = float(np.mean(values)) if values else math.nan
    if len(values) < 2:
        return Measured(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return Measured(mean, mean - half, mean + half)


def resampled(values: Sequence[float], statistic: Statistic) -> Measured:
    """A statistic of one figure a seed, and its percentile bootstrap; a single seed has none."""
    if len(values) < 2:
        return Measured(values[0] if values else math.nan, math.nan, math.nan)
    found = bootstrap(np.asarray(values, dtype=np.float64), statistic)
    return Measured(found.value, found.low, found.high)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected after Holm (1979); what is not a number takes no part."""
    known = sorted((value, name) for name, value in p.items() if not math.isnan(value))
    corrected, so_far = dict(p), 0.0
    for rank, (value, name) in enumerate(known):
        so_far = max(so_far, min(1.0, value * (len(known) - rank)))
        corrected[name] = so_far
    return corrected


def compared(scores: Mapping[str, Sequence[float]], reference: str) -> dict[str, Comparison]:
    """Every arm's seeds' mean scores against the reference arm's."""
    base, differences, p = scores[reference], {}, {}
    for name, values in scores.items():
        if name == reference or not values or not base:
            continue
        difference, low, high, p[name] = float(np.mean(values) - np.mean(base)), math.nan, math.nan, math.nan
        if min(len(values), len(base)) > 1:
            test = stats.ttest_ind(values, base, equal_var=False)
            bounds = test.confidence_interval(0.95)
            low, high, p[name] = float(bounds.low), float(bounds.high), float(test.pvalue)
        differences[name] = Measured(difference, low, high)
    corrected = holm(p)
    return {name: Comparison(difference, corrected[name]) for name, difference in differences.items()}


def shown(figure: Measured, digits: int | None = None) -> str:
    """A figure with its interval, `-` where there is none; three digits after the point below 10, one above."""
    if math.isnan(figure.value):
        return "-"
    if digits is None:
        digits = 1 if abs(figure.value) >= 10 else 3
    interval = "" if math.isnan(figure.low) else f" [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return f"{figure.value:.{digits}f}{interval}"
