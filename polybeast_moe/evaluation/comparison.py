"""Several runs side by side: where their configurations differ, and by how much their figures do.

Intervals are percentile bootstraps over episodes (Efron 1979). They say how sure a difference between these runs is,
not how another seed would have come out: for that, compare runs of several seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polybeast_moe.config_files import flattened
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.statistics import RESAMPLES, Floats, mean, resampled
from polybeast_moe.evaluation.tables import RANDOM_POLICY, PhaseRow, phase_rows, scores_by_phase


@dataclass(frozen=True)
class Difference:
    """A run's phase beside the same phase of the first run: differences are run minus first, in points and nats.

    `low` and `high`: 95 % interval of the difference of mean scores; None where either run has too few episodes.
    """

    phase: str
    run: str
    row: PhaseRow
    mean_score: float | None
    low: float | None
    high: float | None
    alpha_entropy: float | None
    frames_per_second: float | None
    """Ratio, not difference."""


def names(runs: Sequence[RunData]) -> list[str]:
    """Returns a name for each run, numbered where directories have the same one."""
    plain = [run.name for run in runs]
    return [f"{name} ({i})" if plain.count(name) > 1 else name for i, name in enumerate(plain, 1)]


def configuration_differences(runs: Sequence[RunData]) -> dict[str, list[Any]]:
    """Returns the keys that not all runs set alike -> each run's value, None where it sets none."""
    flat = [flattened(run.config) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    values = {key: [one.get(key) for one in flat] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def differences(runs: Sequence[RunData]) -> list[Difference]:
    """Returns, phase by phase, every run beside the first (which is compared with nothing)."""
    labels = names(runs)
    scores = [scores_by_phase(run) for run in runs]
    rows = [{row.phase: row for row in phase_rows(run)} for run in runs]
    found = []
    for phase in dict.fromkeys(phase for run in rows for phase in run):
        if phase == RANDOM_POLICY:
            continue
        for index, label in enumerate(labels):
            if phase in rows[index]:
                first = rows[0].get(phase) if index else None
                sample, baseline = scores[index].get(phase, np.empty(0)), scores[0].get(phase, np.empty(0))
                found.append(_difference(phase, label, rows[index][phase], first, sample, baseline))
    return found


def mean_difference(sample: Floats, baseline: Floats, seed: int = 0) -> tuple[float, float]:
    """Returns the ends of the 95 % interval of mean(sample) - mean(baseline); [n] and [m], at least two each."""
    rng = np.random.default_rng(seed)
    drawn = resampled(sample, mean, RESAMPLES, rng) - resampled(baseline, mean, RESAMPLES, rng)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _difference(
    phase: str, label: str, row: PhaseRow, first: PhaseRow | None, sample: Floats, baseline: Floats
) -> Difference:
    interval: tuple[float | None, float | None] = (None, None)
    if first is not None and min(len(sample), len(baseline)) > 1:
        interval = mean_difference(sample, baseline)
    return Difference(
        phase,
        label,
        row,
        mean_score=_minus(row.mean_score, first.mean_score if first else None),
        low=interval[0],
        high=interval[1],
        alpha_entropy=_minus(row.alpha_entropy, first.alpha_entropy if first else None),
        frames_per_second=_over(row.frames_per_second, first.frames_per_second if first else None),
    )


def _minus(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _over(value: float | None, other: float | None) -> float | None:
    return None if value is None or not other else value / other
