"""What a report of several runs says: what differs in their configurations, tables of differences, overlaid curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from polybeast_moe.evaluation.comparison import Difference, configuration_differences, differences, names
from polybeast_moe.evaluation.plots import FEW_EPISODES, draw_cdf, finish_cdf, running_mean, scores_over_frames
from polybeast_moe.evaluation.plotting import LINES, colour, from_zero, legend_beside, marker, new_plot
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.report_page import Picture, Section
from polybeast_moe.evaluation.report_text import NONE, Grid, number, plus_minus, setting
from polybeast_moe.evaluation.tables import RANDOM_POLICY, row_spans, scores_by_phase

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CURVES = (
    ("alpha_entropy", "alpha entropy\n(nats)", 1.0),
    ("usage_entropy", "usage entropy\n(nats)", 1.0),
    ("router_temperature", "router\ntemperature", 1.0),
    ("policy_entropy", "policy entropy\n(nats)", 1.0),
    ("frames_per_second", "thousand\nframes/s", 1e-3),
)
DIFFERENCE_NOTE = (
    "Differences are run minus first run; in brackets the 95 % interval, a percentile bootstrap over episodes. It says "
    "how sure a difference between these runs is, not how another seed would have come out. Entropies in nats."
)


def comparison_sections(runs: Sequence[RunData]) -> list[Section]:
    """Returns the sections of a report of several runs; the others are compared with the first."""
    labels = names(runs)
    found = [Section("Runs", (), [_runs_grid(runs, labels)])]
    differing = configuration_differences(runs)
    if differing:
        grid = [["key", *labels], *([key, *map(setting, values)] for key, values in differing.items())]
        found.append(Section("What was set differently", (), [grid]))
    found.append(Section("Differences by phase", (DIFFERENCE_NOTE,), [_difference_grid(differences(runs))]))
    if any(run.episodes.length for run in runs):
        pictures = [
            Picture("score", "Mean score of the last 100 episodes.", lambda: _scores(runs, labels)),
            Picture("score_cdf", "Scores in the last phase that each run played.", lambda: _cdfs(runs, labels)),
        ]
        found.append(Section("Scores", pictures=pictures))
    if any(run.metrics.length for run in runs):
        caption = "Entropies, temperature and speed of each run over its frames."
        found.append(Section("Training", pictures=[Picture("training", caption, lambda: _training(runs, labels))]))
    return found


def _runs_grid(runs: Sequence[RunData], labels: Sequence[str]) -> Grid:
    grid = [["run", "seed", "episodes", "frames", "minutes", "last phase"]]
    for run, label in zip(runs, labels, strict=True):
        frames, seconds = row_spans(run)
        phase = _last_phase(run) or NONE
        minutes = f"{seconds.sum() / 60:.1f}"
        seed = str(run.config.get("seed", NONE))
        grid.append([label, seed, f"{run.episodes.length:,}", f"{int(frames.sum()):,}", minutes, phase])
    return grid


def _difference_grid(found: Sequence[Difference]) -> Grid:
    header = ["phase", "run", "episodes", "mean score ± se", "difference [95 %]", "median", "alpha entropy"]
    grid = [[*header, "difference", "frames/s", "ratio"]]
    for one in found:
        difference = NONE
        if one.mean_score is not None and one.low is not None and one.high is not None:
            difference = f"{one.mean_score:+.1f} [{one.low:+.1f}, {one.high:+.1f}]"
        row = one.row
        grid.append(
            [
                one.phase,
                one.run,
                str(row.episodes),
                plus_minus(row.mean_score, row.standard_error, ".1f"),
                difference,
                number(row.median_score, "g"),
                number(row.alpha_entropy),
                number(one.alpha_entropy, "+.2f"),
                number(row.frames_per_second, ".0f"),
                number(one.frames_per_second),
            ]
        )
    return grid


def _last_phase(run: RunData) -> str | None:
    played = [name for name, scores in scores_by_phase(run).items() if len(scores) and name != RANDOM_POLICY]
    return played[-1] if played else None


def _scores(runs: Sequence[RunData], labels: Sequence[str]) -> Figure:
    figure, (axes,) = new_plot(1, 4.0)
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        frames, scores = scores_over_frames(run)
        means = running_mean(scores)[FEW_EPISODES:]
        axes.plot(frames[FEW_EPISODES:], means, LINES[index % 4], color=colour(index), label=label)
    from_zero(axes)
    axes.set_ylabel("mean score (points)")
    axes.set_xlabel("frames (millions)")
    legend_beside(axes)
    return figure


def _cdfs(runs: Sequence[RunData], labels: Sequence[str]) -> Figure:
    figure, (axes,) = new_plot(1, 3.8)
    for index, (run, label) in enumerate(zip(runs, labels, strict=True)):
        phase = _last_phase(run)
        if phase is not None:
            scores = scores_by_phase(run)[phase]
            draw_cdf(axes, scores, f"{label}: {phase} ({len(scores):,})", colour(index), LINES[index % 4])
    finish_cdf(axes)
    return figure


def _training(runs: Sequence[RunData], labels: Sequence[str]) -> Figure:
    shown = [c for c in _CURVES if any(np.isfinite(run.metrics.floats(c[0])).any() for run in runs)] or [*_CURVES[:1]]
    figure, drawings = new_plot(len(shown), 1.7 * len(shown) + 0.6)
    for place, (axes, (column, label, scale)) in enumerate(zip(drawings, shown, strict=True)):
        for index, (run, name) in enumerate(zip(runs, labels, strict=True)):
            frames = run.metrics.floats("frames") / 1e6
            values = scale * run.metrics.floats(column)
            axes.plot(frames, values, LINES[index % 4], color=colour(index), label=name, marker=marker(frames))
        from_zero(axes)
        axes.set_ylabel(label, fontsize=8)
        axes.set_xlabel("frames (millions)")
        axes.label_outer()
        if place == 0:
            legend_beside(axes)
    return figure
