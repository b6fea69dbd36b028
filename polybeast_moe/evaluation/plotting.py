"""How plots look: one size, colours and line styles that everybody can tell apart, phase bands, units on axes.

Matplotlib is imported where it is used, for it is slow to; plots are drawn by its Agg backend alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.statistics import Floats
from polybeast_moe.evaluation.tables import RANDOM_POLICY, row_spans

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito (2008), "Color universal design"; line styles and hatches tell series apart without any colour.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")
GREY = "#666666"
WIDTH = 8.5  # inches


def colour(index: int) -> str:
    """Returns the colour of a series."""
    return COLOURS[index % len(COLOURS)]


def series_colour(name: str, index: int) -> str:
    """Returns the colour of a phase's series; the random policy, which is no phase, is grey."""
    return "#bbbbbb" if name.startswith(RANDOM_POLICY) else colour(index)


def series_line(name: str, index: int) -> Any:
    """Returns the line style of a phase's series; the random policy has one of its own."""
    return (0, (6, 1.5, 1, 1.5, 1, 1.5)) if name.startswith(RANDOM_POLICY) else LINES[index % len(LINES)]


def hatch(index: int) -> str:
    """Returns the hatch of a series of bars or areas."""
    return HATCHES[index % len(HATCHES)]


def new_plot(rows: int, height: float, heights: Sequence[float] | None = None) -> tuple[Figure, list[Axes]]:
    """Returns a plot of `rows` drawings above each other, which share the horizontal axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid: Any = figure.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=heights)
    return figure, [tidy(axes) for axes in grid[:, 0]]


def side_by_side(columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """Returns a plot of `columns` drawings beside each other, each with its own axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    grid: Any = figure.subplots(1, columns, squeeze=False)
    return figure, [tidy(axes) for axes in grid[0]]


def tidy(axes: Axes) -> Axes:
    """Takes away what is no data and adds faint lines to read heights by."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def over_frames(axes: Axes, run: RunData, names: bool = True, stacked: bool = False) -> None:
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
    legend_beside(axes, stacked)


def legend_beside(axes: Axes, stacked: bool = False) -> None:
    """Puts the legend, if there is anything to name, to the right of the drawing."""
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.06, 1.0), reverse=stacked)


def from_zero(axes: Axes) -> None:
    """Lets the vertical axis begin at 0."""
    top = axes.get_ylim()[1]
    axes.set_ylim(0, top if top > 0 else 1)


def count_axis(axes: Axes) -> None:
    """Lets the vertical axis count: from 0 to 1 at least, in whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")


def score_axis(axes: Axes, lowest: float, highest: float) -> None:
    """Makes the vertical axis one of scores: linear below 10 points, logarithmic above."""
    axes.set_yscale("symlog", linthresh=10, linscale=0.7)
    axes.set_yticks(*score_ticks(highest))
    axes.minorticks_off()
    axes.set_ylim(min(0.0, lowest) - 0.5, max(highest * 1.3, 12.0))
    axes.set_ylabel("score (points)")


def score_ticks(highest: float) -> tuple[list[int], list[str]]:
    """Returns the ticks of an axis of scores up to about `highest`, and what is written at them."""
    ticks = [tick for tick in (0, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000) if tick <= highest * 1.5]
    return ticks, [f"{tick:,}" for tick in ticks]


def bars(axes: Axes, groups: Mapping[str, Floats], names: Sequence[str]) -> None:
    """Draws a group of bars for each name, with one bar a series; `groups`: series -> heights [names]."""
    width = 0.8 / max(len(groups), 1)
    places = np.arange(len(names))
    for index, (label, heights) in enumerate(groups.items()):
        axes.bar(
            places + (index - (len(groups) - 1) / 2) * width, heights, width, label=label, hatch=hatch(index),
            color=series_colour(label, index), edgecolor="black", linewidth=0.5,
        )  # fmt: skip
    axes.set_xticks(places, names)


def whisker(axes: Axes, place: float, height: float, error: float) -> None:
    """Draws an error over a bar, edged in white so that no hatch hides it."""
    from matplotlib.patheffects import withStroke

    drawn = axes.errorbar(place, height, error, fmt="none", ecolor="black", elinewidth=1.5, capsize=4, capthick=1.5)
    for part in (*drawn[1], *drawn[2]):
        part.set_path_effects([withStroke(linewidth=4, foreground="white")])


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


def marker(points: Floats) -> str:
    """Returns a marker for a curve [points] of so few points that a line would not show them."""
    return "o" if len(points) < 3 else ""
