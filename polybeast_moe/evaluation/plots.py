"""The plots of a report that show scores. Each function draws from a run's files and returns matplotlib's Figure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polybeast_moe.evaluation.breakdowns import ScoreParts, Segment
from polybeast_moe.evaluation.plotting import (
    COLOURS,
    bars,
    colour,
    from_zero,
    hatch,
    legend_beside,
    new_plot,
    over_frames,
    score_axis,
    score_ticks,
    series_colour,
    series_line,
    side_by_side,
    whisker,
)
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.score import SCORE_PARTS
from polybeast_moe.evaluation.statistics import Floats
from polybeast_moe.evaluation.tables import (
    BUCKET_NAMES,
    RANDOM_POLICY,
    PhaseRow,
    bucket_shares,
    scores_by_phase,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RUNNING_EPISODES = 100
FEW_EPISODES = 10  # the running mean is drawn from here on: the mean of fewer only shows noise
MAX_DOTS = 20_000


def score_plot(run: RunData) -> Figure:
    """Draws the score of every episode over frames, and the running mean."""
    figure, (axes,) = new_plot(1, 4.2)
    frames, scores = scores_over_frames(run)
    step = max(1, len(scores) // MAX_DOTS)
    axes.plot(
        frames[::step], scores[::step], ".", color=COLOURS[5], markersize=3, alpha=0.5, label="episode", rasterized=True
    )
    if len(scores) > FEW_EPISODES:
        means = running_mean(scores)[FEW_EPISODES:]
        axes.plot(frames[FEW_EPISODES:], means, color=COLOURS[0], linewidth=2, label=f"mean of {RUNNING_EPISODES}")
    random = scores_by_phase(run).get(RANDOM_POLICY, np.empty(0))
    if len(random):
        label = f"random policy, mean {random.mean():.1f}"
        axes.axhline(float(random.mean()), color=COLOURS[1], linestyle="--", linewidth=1.5, label=label)
    _draw_held_out(axes, run)
    score_axis(axes, float(scores.min(initial=0.0)), float(scores.max(initial=10.0)))
    over_frames(axes, run)
    return figure


def _draw_held_out(axes: Axes, run: RunData) -> None:
    """Adds what snapshots scored in held-out games while the run went on, ± standard error."""
    frames, scores, errors = (run.metrics.floats(f"held_out_{name}") for name in ("frames", "score", "standard_error"))
    known = ~np.isnan(frames) & ~np.isnan(scores)
    if known.any():
        axes.errorbar(
            frames[known] / 1e6, scores[known], yerr=np.nan_to_num(errors[known]), label="held-out games",
            color=COLOURS[2], marker="s", markersize=4, linewidth=1, capsize=2,
        )  # fmt: skip


def segments_plot(run: RunData, found: Sequence[Segment]) -> Figure:
    """Draws the mean score ± standard error and the median of each segment over frames."""
    figure, (axes,) = new_plot(1, 3.4)
    frames = np.array([segment.frames for segment in found]) / 1e6
    means = np.array([segment.mean_score for segment in found])
    errors = np.array([segment.standard_error or 0.0 for segment in found])
    axes.errorbar(frames, means, errors, color=COLOURS[0], marker="o", markersize=4, capsize=3, label="mean ± se")
    medians = [segment.median_score for segment in found]
    axes.plot(frames, medians, "--", color=COLOURS[1], marker="s", markersize=4, label="median")
    from_zero(axes)
    axes.set_ylabel("score (points)")
    over_frames(axes, run)
    axes.set_xlim(right=1.01 * axes.get_xlim()[1])  # the last segment ends where the run does
    return figure


def distribution_plot(run: RunData) -> Figure:
    """Draws the share of episodes in each score bucket as bars, a group for each bucket."""
    figure, (axes,) = new_plot(1, 3.8)
    groups = {phase: scores for phase, scores in scores_by_phase(run).items() if len(scores)}
    shares = {f"{phase} ({len(scores)})": 100 * bucket_shares(scores) for phase, scores in groups.items()}
    bars(axes, shares, BUCKET_NAMES)
    axes.set_xlabel("score (points)")
    axes.set_ylabel("episodes (%)")
    axes.legend(title="phase (episodes)", fontsize=8, title_fontsize=8, frameon=False)
    return figure


def cdf_plot(run: RunData) -> Figure:
    """Draws, for each phase, the share of episodes that scored at most so much."""
    figure, (axes,) = new_plot(1, 3.8)
    for index, (phase, scores) in enumerate(scores_by_phase(run).items()):
        if len(scores):
            draw_cdf(axes, scores, phase, series_colour(phase, index), series_line(phase, index))
    finish_cdf(axes)
    return figure


def draw_cdf(axes: Axes, scores: Floats, label: str, its_colour: str, line: Any) -> None:
    """Draws the empirical distribution function of scores [episodes] as a staircase; `line` is a line style."""
    values, counts = np.unique(np.maximum(scores, 0.0), return_counts=True)
    shares = 100 * np.cumsum(counts) / len(scores)
    axes.step(
        [0.0, *values], [0.0, *shares], where="post", color=its_colour, linestyle=line, linewidth=1.8, label=label
    )


def finish_cdf(axes: Axes) -> None:
    """Adds the axes of a drawing of distribution functions."""
    axes.set_xscale("symlog", linthresh=10, linscale=0.7)
    top = max([10.0, *(float(np.asarray(line.get_xdata())[-1]) for line in axes.get_lines())])
    axes.set_xticks(*score_ticks(top))
    axes.minorticks_off()
    axes.set_xlim(0, top * 1.2)
    axes.set_ylim(0, 100)
    axes.set_xlabel("score (points)")
    axes.set_ylabel("episodes at or below (%)")
    axes.legend(fontsize=8, frameon=False, loc="lower right", handlelength=3.5)


def parts_plot(found: Sequence[ScoreParts]) -> Figure:
    """Draws the mean score of each phase, stacked from its parts."""
    figure, (axes,) = new_plot(1, 3.4)
    bottoms = np.zeros(len(found))
    for index, name in enumerate(SCORE_PARTS):
        heights = np.array([group.parts[name] for group in found])
        axes.bar(
            range(len(found)), heights, 0.6, bottom=bottoms, label=name, color=colour(index), edgecolor="black",
            linewidth=0.5, hatch=hatch(index),
        )  # fmt: skip
        bottoms += heights
    axes.set_xticks(range(len(found)), [group.phase for group in found])
    axes.set_ylabel("mean score (points)")
    legend_beside(axes, stacked=True)
    return figure


def phases_plot(rows: Sequence[PhaseRow]) -> Figure:
    """Draws the phases beside each other: mean score, spread, maximum and alpha entropy."""
    played = [row for row in rows if row.mean_score is not None]
    panels = (
        ("mean score\n± se (points)", "mean_score", "standard_error"),
        ("median score\n(points)", "median_score", None),
        ("spread of scores\nsd (points)", "score_sd", None),
        ("alpha entropy\n± sd (nats)", "alpha_entropy", "alpha_entropy_sd"),
    )
    figure, drawings = side_by_side(len(panels), 3.4)
    for axes, (title, value, error) in zip(drawings, panels, strict=True):
        for index, row in enumerate(played):
            height = getattr(row, value)
            if height is None:
                continue
            error_bar = None if error is None else getattr(row, error)
            axes.bar(
                index, height, 0.7, color=series_colour(row.phase, index), edgecolor="black", linewidth=0.5,
                hatch=hatch(index),
            )  # fmt: skip
            if error_bar is not None:
                whisker(axes, index, height, error_bar)
        axes.set_title(title, fontsize=9)
        axes.set_xticks(range(len(played)), [row.phase for row in played], rotation=60, ha="right", fontsize=8)
        from_zero(axes)
    return figure


def scores_over_frames(run: RunData) -> tuple[Floats, Floats]:
    """Returns millions of frames and scores of the finished episodes, in the order of frames: [episodes] each."""
    frames, scores = run.episodes.floats("frames") / 1e6, run.episodes.floats("score")
    known = ~np.isnan(scores) & ~np.isnan(frames)
    order = np.argsort(frames[known], kind="stable")
    return frames[known][order], scores[known][order]


def running_mean(values: Floats, width: int = RUNNING_EPISODES) -> Floats:
    """Returns the mean of each value and the up to `width` - 1 before it: [n] -> [n]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    means: Floats = (sums[ends] - sums[begins]) / (ends - begins)
    return means
