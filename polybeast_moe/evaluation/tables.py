"""The numbers of a report: one row a phase, score buckets, and the verdict on each target.

The standard error of a mean score is sd / sqrt(episodes), sd with n - 1. A row of `metrics.csv` covers what happened
since the row before it, in the phase that it names. Entropies of a phase are means over its rows weighted by frames, so
that usage entropy tells how the experts share the work at a time, not whether they took turns over the phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from polybeast_moe.config import TARGET_FIGURES, Bound
from polybeast_moe.errors import UserError, nearest
from polybeast_moe.evaluation.report_data import DataTable, RunData, read_run
from polybeast_moe.evaluation.statistics import Floats, standard_error

RANDOM_POLICY = "random policy"
MIN_EPISODES = 30  # fewer say too little about a mean for a verdict
BUCKETS = ((-math.inf, 5.0), (5.0, 10.0), (10.0, 20.0), (20.0, 50.0), (50.0, 100.0), (100.0, math.inf))
BUCKET_NAMES = ("0-5", "5-10", "10-20", "20-50", "50-100", "100+")


@dataclass(frozen=True)
class PhaseRow:
    """A phase in numbers; None where nothing was measured. Entropies and routing information are in nats."""

    phase: str
    episodes: int
    frames: int
    minutes: float | None
    frames_per_second: float | None
    mean_score: float | None
    standard_error: float | None
    score_sd: float | None
    median_score: float | None
    max_score: float | None
    alpha_entropy: float | None
    alpha_entropy_sd: float | None
    usage_entropy: float | None
    routing_information: float | None


@dataclass(frozen=True)
class Verdict:
    """A target of the configuration beside what was reached. `result`: met, missed, too few episodes or no data."""

    phase: str
    figure: str
    expected: str
    reached: float | None
    result: str


def phase_table(run_dir: Path) -> list[PhaseRow]:
    """Returns the rows of a run directory's phase table. Raises UserError if it holds no run."""
    return phase_rows(read_run(run_dir))


def phase_rows(run: RunData) -> list[PhaseRow]:
    """Returns a row for each phase, also those not reached, and one for the random policy if it was measured."""
    rows = [_phase_row(run, phase) for phase in run.phases]
    if run.random_episodes is not None:
        rows.append(_random_row(run.random_episodes))
    return rows


def scores_by_phase(run: RunData) -> dict[str, Floats]:
    """Returns the scores of finished episodes, [episodes] each, by phase; the random policy's last, if measured."""
    phases, scores = run.episodes.strings("phase"), run.episodes.floats("score")
    found = {phase: _known(scores[phases == phase]) for phase in run.phases}
    if run.random_episodes is not None:
        found[RANDOM_POLICY] = _known(run.random_episodes.floats("score"))
    return found


def bucket_shares(scores: Floats) -> Floats:
    """Returns the share of scores in each bucket, [buckets]; a bucket holds its lower bound. Zeros without scores."""
    counts = np.array([np.sum((scores >= low) & (scores < high)) for low, high in BUCKETS], dtype=np.float64)
    return counts / max(len(scores), 1)


def verdicts(run: RunData, rows: Sequence[PhaseRow]) -> list[Verdict]:
    """Returns what became of each target. Raises UserError for a target that the report does not know."""
    by_phase = {row.phase: row for row in rows}
    found = []
    for phase, targets in run.config.get("targets", {}).items():
        for figure, fields in targets.items():
            place = f"config.yaml: targets.{phase}.{figure}"
            if figure not in TARGET_FIGURES:
                raise UserError(f"{place} is no figure that a target can have{nearest(figure, TARGET_FIGURES)}")
            try:
                bound = Bound.model_validate(fields)
            except ValidationError as error:
                raise UserError(f"{place}: {error.errors()[0]['msg']}") from None
            found.append(_verdict(phase, figure, bound, by_phase.get(phase)))
    return found


def row_spans(run: RunData) -> tuple[Floats, Floats]:
    """Returns the frames and the seconds that each row of `metrics.csv` covers, [rows] each.

    A run that began from another run's snapshot does not start at zero: its first event tells where it did.
    """
    frames, wall = run.metrics.floats("frames"), run.metrics.floats("wall_seconds")
    if not len(frames):
        return frames, wall
    first = run.events[0].get("frames", 0) if run.events else 0
    begin = float(first) if isinstance(first, int | float) and first <= frames[0] else 0.0
    spans = np.diff(frames, prepend=begin)
    seconds = np.diff(wall, prepend=0.0)
    speed = run.metrics.floats("frames_per_second")[0]
    if begin > 0 and speed > 0:
        seconds[0] = spans[0] / speed
    return np.maximum(np.nan_to_num(spans), 0.0), np.maximum(np.nan_to_num(seconds), 0.0)


def _phase_row(run: RunData, phase: str) -> PhaseRow:
    here = run.metrics.strings("phase") == phase
    weights, durations = (span[here] for span in row_spans(run))
    frames, seconds = float(weights.sum()), float(durations.sum())
    alpha, alpha_sd = _weighted(run.metrics.floats("alpha_entropy")[here], weights)
    usage, _ = _weighted(run.metrics.floats("usage_entropy")[here], weights)
    scores = _known(run.episodes.floats("score")[run.episodes.strings("phase") == phase])
    return PhaseRow(
        phase=phase,
        frames=int(frames),
        minutes=seconds / 60 if here.any() else None,
        frames_per_second=frames / seconds if seconds > 0 else None,
        alpha_entropy=alpha,
        alpha_entropy_sd=alpha_sd,
        usage_entropy=usage,
        routing_information=None if alpha is None or usage is None else usage - alpha,
        **_score_figures(scores),
    )


def _random_row(episodes: DataTable) -> PhaseRow:
    return PhaseRow(
        phase=RANDOM_POLICY,
        frames=int(np.nansum(episodes.floats("length"))),
        minutes=None,
        frames_per_second=None,
        alpha_entropy=None,
        alpha_entropy_sd=None,
        usage_entropy=None,
        routing_information=None,
        **_score_figures(_known(episodes.floats("score"))),
    )


def _score_figures(scores: Floats) -> dict[str, Any]:
    """The fields of a PhaseRow that scores give: [episodes] -> mean, spread, median, maximum."""
    count = len(scores)
    return {
        "episodes": count,
        "mean_score": float(np.mean(scores)) if count else None,
        "standard_error": standard_error(scores),
        "score_sd": float(np.std(scores, ddof=1)) if count > 1 else None,
        "median_score": float(np.median(scores)) if count else None,
        "max_score": float(np.max(scores)) if count else None,
    }


def _weighted(values: Floats, weights: Floats) -> tuple[float | None, float | None]:
    """Mean and standard deviation over rows, weighted, of the values that are known."""
    known = np.isfinite(values) & (weights > 0)
    if not known.any():
        return None, None
    mean = np.average(values[known], weights=weights[known])
    variance = np.average((values[known] - mean) ** 2, weights=weights[known])
    return float(mean), float(np.sqrt(variance))


def _known(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _verdict(phase: str, figure: str, bound: Bound, row: PhaseRow | None) -> Verdict:
    reached: float | None = None if row is None else getattr(row, figure)
    if row is not None and row.episodes < MIN_EPISODES:
        result = "too few episodes"
    elif reached is None:
        result = "no data"
    else:
        low, high = bound_ends(bound)
        result = "met" if low <= reached <= high else "missed"
    return Verdict(phase, figure, bound_text(bound), reached, result)


def bound_ends(bound: Bound) -> tuple[float, float]:
    """Returns the lowest and the highest value within a bound, infinite where it is open."""
    if bound.within is not None:
        return bound.within
    return (
        -math.inf if bound.at_least is None else bound.at_least,
        math.inf if bound.at_most is None else bound.at_most,
    )


def bound_text(bound: Bound) -> str:
    """Returns a bound in words, such as ``at least 120``."""
    if bound.within is not None:
        return f"{bound.within[0]:g} to {bound.within[1]:g}"
    return f"at most {bound.at_most:g}" if bound.at_least is None else f"at least {bound.at_least:g}"
