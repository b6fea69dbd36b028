"""Figures of samples against slow definitions and known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polybeast_moe.evaluation.statistics import bootstrap, entropy, interquartile_mean, mean, standard_error


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8, 101])
def test_the_interquartile_mean_is_that_of_the_middle_half(count: int) -> None:
    """Every value repeated four times: then the middle half has whole values."""
    sample = np.random.default_rng(count).normal(size=count)
    repeated = np.sort(np.repeat(sample, 4))
    assert interquartile_mean(sample) == pytest.approx(repeated[count : 3 * count].mean())


def test_it_is_not_moved_by_outliers() -> None:
    sample = np.arange(100.0)
    far = np.where(sample > 90, 1e9, sample)
    assert interquartile_mean(sample) == pytest.approx(interquartile_mean(far)) == pytest.approx(49.5)


def test_an_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        found = bootstrap(generator.exponential(size=120), resamples=400, seed=trial)
        covered += found.low <= 1.0 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


def test_an_interval_is_a_function_of_the_sample_and_the_seed() -> None:
    sample = np.random.default_rng(0).normal(size=50)
    assert bootstrap(sample) == bootstrap(sample)
    assert bootstrap(sample) != bootstrap(sample, seed=1)
    found = bootstrap(sample, interquartile_mean)
    assert found.low < found.value < found.high


def test_a_single_value_has_no_error() -> None:
    assert standard_error(np.array([3.0])) is None
    assert standard_error(np.array([1.0, 3.0])) == pytest.approx(1.0)
    assert bootstrap(np.array([3.0]), mean).low == 3.0
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(np.array([]))


def test_entropy_is_in_nats_and_takes_zeros() -> None:
    assert entropy(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])) == pytest.approx([math.log(2), 0.0])
