"""The figures of a report: drawn by matplotlib's Agg alone, colour-blind safe, readable in black and white.

Each function draws from a run's files and returns a Figure; matplotlib is imported where it is used, for it is slow to.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polybeast_moe.config import Bound
from polybeast_moe.evaluation.report_data import Floats, RunData
from polybeast_moe.evaluation.tables import (
    BUCKET_NAMES,
    RANDOM_POLICY,
    bound_ends,
    bucket_shares,
    row_spans,
    scores_by_phase,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color universal design"; line styles and hatches tell series apart without any colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")
GREY = "#666666"
RUNNING_EPISODES = 100
FEW_EPISODES = 10  # the running mean is drawn from here on: the mean of fewer only shows noise
MAX_DOTS = 20_000


def figures(run: RunData) -> dict[str, tuple[str, Callable[[RunData], Figure]]]:
    """Returns the report's figures: file name without its ending -> caption, function that draws it."""
    found: dict[str, tuple[str, Callable[[RunData], Figure]]] = {}
    if run.episodes.length:
        found["score"] = (
            "Score of every episode, the last score before its end (dots), and the mean of the last "
            f"{RUNNING_EPISODES} (line). The axis is logarithmic above 10.",
            score_figure,
        )
    if run.metrics.length:
        found["router"] = (
            "Above: alpha entropy (mean of H over states), usage entropy (H of the mean) and routing information, "
            "their difference; shaded boxes are targets for alpha entropy. Below: the router's temperature.",
            router_figure,
        )
    if run.metrics.length and run.experts:
        found["experts"] = ("Share of each expert in the router's mean weights.", experts_figure)
    if any(len(scores) for scores in scores_by_phase(run).values()):
        found["score_distribution"] = ("Share of episodes by score, in each phase.", distribution_figure)
    return found


def score_figure(run: RunData) -> Figure:
    """Draws scores over frames."""
    figure, (axes,) = _figure(1, 4.2)
    frames, scores = run.episodes.floats("frames") / 1e6, run.episodes.floats("score")
    known = ~np.isnan(scores) & ~np.isnan(frames)
    order = np.argsort(frames[known], kind="stable")
    frames, scores = frames[known][order], scores[known][order]
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
    axes.set_yscale("symlog", linthresh=10, linscale=0.7)
    top = float(scores.max(initial=10.0))
    ticks = [tick for tick in (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if tick <= top * 1.5]
    axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(min(0.0, float(scores.min(initial=0.0))) - 0.5, max(top * 1.3, 12.0))
    axes.set_ylabel("score (points)")
    _finish(axes, run)
    return figure


def router_figure(run: RunData) -> Figure:
    """Draws entropies, information and temperature over frames."""
    figure, (above, below) = _figure(2, 5.6, heights=(2.2, 1))
    frames = run.metrics.floats("frames") / 1e6
    series = (
        ("alpha_entropy", "alpha entropy"),
        ("usage_entropy", "usage entropy"),
        ("routing_information", "information"),
    )
    for (column, label), colour, line in zip(series, COLOURS, LINES, strict=False):
        above.plot(frames, run.metrics.floats(column), line, color=colour, label=label, marker=_marker(frames))
    if run.experts:
        limit = float(np.log(len(run.experts)))
        above.axhline(limit, color=GREY, linewidth=0.8, linestyle=":")
        above.annotate(
            f"ln {len(run.experts)}", (1, limit), xycoords=("axes fraction", "data"), xytext=(3, -3),
            textcoords="offset points", fontsize=8, color=GREY,
        )  # fmt: skip
    _draw_targets(above, run)
    above.set_ylim(bottom=0)
    above.set_ylabel("nats")
    _finish(above, run)
    temperature = run.metrics.floats("router_temperature")
    below.plot(frames, temperature, color=COLOURS[3], marker=_marker(frames))
    below.set_ylim(bottom=0)
    below.set_ylabel("temperature")
    _finish(below, run, names=False)
    return figure


def experts_figure(run: RunData) -> Figure:
    """Draws the experts' shares over frames, stacked to 100 %."""
    figure, (axes,) = _figure(1, 3.8)
    frames = run.metrics.floats("frames") / 1e6
    shares = np.array([np.nan_to_num(run.metrics.floats(f"expert_{name}_share")) for name in run.experts])
    if len(frames) == 1:  # an area needs two ends
        frames, shares = np.array([0.0, frames[0]]), np.repeat(shares, 2, axis=1)
    colours = [colour for colour, _ in zip(itertools.cycle(COLOURS), run.experts, strict=False)]
    areas = axes.stackplot(frames, 100 * shares, labels=run.experts, colors=colours, alpha=0.75)
    for area, hatch in zip(areas, itertools.cycle(HATCHES), strict=False):
        area.set_hatch(hatch)
        area.set_edgecolor("white")
    axes.set_ylim(0, 100)
    axes.set_ylabel("share of mean alpha (%)")
    _finish(axes, run, stacked=True)
    return figure


def distribution_figure(run: RunData) -> Figure:
    """Draws the share of episodes in each score bucket as bars, a group for each bucket."""
    figure, (axes,) = _figure(1, 3.8)
    groups = {phase: scores for phase, scores in scores_by_phase(run).items() if len(scores)}
    width = 0.8 / len(groups)
    places = np.arange(len(BUCKET_NAMES))
    for index, (phase, scores) in enumerate(groups.items()):
        colour = "#bbbbbb" if phase == RANDOM_POLICY else COLOURS[index % len(COLOURS)]
        axes.bar(
            places + (index - (len(groups) - 1) / 2) * width, 100 * bucket_shares(scores), width, color=colour,
            edgecolor="black", linewidth=0.5, hatch=HATCHES[index % len(HATCHES)], label=f"{phase} ({len(scores)})",
        )  # fmt: skip
    axes.set_xticks(places, BUCKET_NAMES)
    axes.set_xlabel("score (points)")
    axes.set_ylabel("episodes (%)")
    axes.legend(title="phase (episodes)", fontsize=8, title_fontsize=8, frameon=False)
    return figure


def running_mean(values: Floats, width: int = RUNNING_EPISODES) -> Floats:
    """Returns the mean of each value and the up to `width` - 1 before it: [n] -> [n]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    begins = np.maximum(ends - width, 0)
    means: Floats = (sums[ends] - sums[begins]) / (ends - begins)
    return means


def phase_spans(run: RunData) -> list[tuple[str, float, float]]:
    """Returns phase, first and last frame of every stretch of `metrics.csv` rows in one phase."""
    frames, spans = run.metrics.floats("frames"), row_spans(run)[0]
    stretches: list[tuple[str, float, float]] = []
    for phase, end, span in zip(run.metrics.strings("phase"), frames, spans, strict=True):
        if stretches and stretches[-1][0] == phase:
            stretches[-1] = (phase, stretches[-1][1], float(end))
        else:
            stretches.append((str(phase), float(end - span), float(end)))
    return stretches


def _figure(rows: int, height: float, heights: Sequence[float] | None = None) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, height), layout="constrained")
    grid: Any = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)
    axes: list[Axes] = list(grid[:, 0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(axis="y", color="#dddddd", linewidth=0.6)
        one.set_axisbelow(True)
    return figure, axes


def _finish(axes: Axes, run: RunData, names: bool = True, stacked: bool = False) -> None:
    """Adds phase bands, their names, the frames axis and a legend to a drawing over frames."""
    ends = (run.metrics.floats("frames"), run.episodes.floats("frames"))
    last = max(float(np.nanmax(frames, initial=1.0)) for frames in ends)
    spans = phase_spans(run)
    narrow = any(end - begin < 0.012 * len(phase) * last for phase, begin, end in spans)
    for index, (phase, begin, end) in enumerate(spans):
        if index % 2:
            axes.axvspan(begin / 1e6, end / 1e6, color="#eeeeee", zorder=-1, linewidth=0)
        if begin > 0:
            axes.axvline(begin / 1e6, color=GREY, linewidth=0.6)
        if names:
            axes.annotate(
                phase, ((begin + end) / 2e6, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom",
                xytext=(0, 13 if narrow and index % 2 else 3), textcoords="offset points", fontsize=8, color="#333333",
                annotation_clip=False,
            )  # fmt: skip
    axes.set_xlim(0, last / 1e6)
    axes.set_xlabel("frames (millions)")
    axes.label_outer()
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.06, 1.0), reverse=stacked)


def _draw_targets(axes: Axes, run: RunData) -> None:
    targets: Mapping[str, Mapping[str, Any]] = run.config.get("targets", {})
    for phase, begin, end in phase_spans(run):
        if "alpha_entropy" in targets.get(phase, {}):
            low, high = bound_ends(Bound.model_validate(targets[phase]["alpha_entropy"]))
            limit = float(np.log(max(len(run.experts), 2)))
            low, high = max(low, 0.0), min(high, limit)
            axes.fill_between([begin / 1e6, end / 1e6], low, high, color=COLOURS[4], alpha=0.3, linewidth=0, zorder=0)


def _marker(points: Floats) -> str:
    return "o" if len(points) < 3 else ""
