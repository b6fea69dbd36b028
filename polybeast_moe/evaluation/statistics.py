"""Figures of a sample of episodes, and how sure one can be of them. Pure; the unit is the episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]
"""Of samples [..., n] along the last axis -> [...]."""

RESAMPLES = 2000
CONFIDENCE = 0.95
_AT_A_TIME = 4_000_000  # values drawn at a time: memory stays small


@dataclass(frozen=True)
class Interval:
    """A figure and the ends of its confidence interval."""

    value: float
    low: float
    high: float


def interquartile_mean(sample: Floats) -> Floats:
    """Mean of the middle half of samples [..., n], along the last axis (Agarwal et al. 2021). n not divisible by four
    counts the two border values in part."""
    ordered = np.sort(sample, axis=-1)
    count = ordered.shape[-1]
    edges = np.clip(np.arange(count + 1) / count, 0.25, 0.75)
    return np.asarray((ordered * np.diff(edges)).sum(axis=-1) / 0.5)


def mean(sample: Floats) -> Floats:
    """Mean of samples [..., n] along the last axis."""
    return np.asarray(sample.mean(axis=-1))


def bootstrap(
    sample: Floats,
    statistic: Statistic = mean,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap (Efron 1979) of a statistic of independent values [n]; deterministic for a seed."""
    if not len(sample):
        raise ValueError("a bootstrap needs at least one value")
    drawn = resampled(sample, statistic, resamples, np.random.default_rng(seed))
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(float(statistic(sample)), float(low), float(high))


def resampled(sample: Floats, statistic: Statistic, resamples: int, generator: np.random.Generator) -> Floats:
    """Returns the statistic of values [n] drawn with replacement, [resamples]."""
    rows = max(1, min(resamples, _AT_A_TIME // len(sample)))
    found = [
        statistic(sample[generator.integers(len(sample), size=(min(rows, resamples - done), len(sample)))])
        for done in range(0, resamples, rows)
    ]
    return np.concatenate(found)


def resampled_counts(episodes: int, resamples: int, seed: int = 0) -> Ints:
    """Returns how often each episode is drawn in each resample, [resamples, episodes]."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(episodes, np.full(episodes, 1 / episodes), size=resamples).astype(np.int64)


def standard_error(sample: Floats) -> float | None:
    """Standard deviation (n - 1) of values [n] over √n; None for fewer than two."""
    return float(np.std(sample, ddof=1) / np.sqrt(len(sample))) if len(sample) > 1 else None


def entropy(shares: Floats) -> Floats:
    """H in nats of distributions [..., k] along the last axis."""
    return np.asarray(-np.sum(shares * np.log(np.where(shares > 0, shares, 1.0)), axis=-1))
