"""The plots of a report that show what an evaluation found out about the experts: heat maps and bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polybeast_moe.evaluation.plotting import colour, hatch, side_by_side
from polybeast_moe.evaluation.statistics import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_ACTIONS = 8
_SHOWN_OPERATORS = 20


def scene_plot(matrix: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws the mean alpha of each expert in each scene as a heat map with its numbers."""
    scenes, experts = list(matrix), list(next(iter(matrix.values())))
    values = np.array([[matrix[scene][expert] for expert in experts] for scene in scenes])
    figure, (axes,) = side_by_side(1, 1.0 + 0.6 * len(scenes))
    _heat_map(axes, values, scenes, experts, numbers=True)
    axes.set_xlabel("expert")
    axes.set_ylabel("scene")
    _colour_bar(figure, axes, "mean alpha")
    return figure


def actions_plot(actions: Mapping[str, Mapping[str, float]], experts: Sequence[str]) -> Figure:
    """Draws the likeliest actions of each expert, as shares of what it would do where the router trusts it.

    `experts`: all of the run's, so that each has the colour here that it has elsewhere.
    """
    figure, drawings = side_by_side(len(actions), 3.2)
    longest = max((share for shares in actions.values() for share in shares.values()), default=1.0)
    for axes, (expert, shares) in zip(drawings, actions.items(), strict=True):
        index = experts.index(expert) if expert in experts else 0
        top = sorted(shares.items(), key=lambda item: -item[1])[:_SHOWN_ACTIONS]
        axes.barh(
            range(len(top)), [100 * share for _, share in top], color=colour(index), edgecolor="black", linewidth=0.5,
            hatch=hatch(index),
        )  # fmt: skip
        axes.set_yticks(range(len(top)), [action for action, _ in top], fontsize=7)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlim(0, 105 * longest)
        axes.set_title(expert, fontsize=9)
        axes.set_xlabel("actions (%)", fontsize=8)
    return figure


def operators_plot(operators: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws how much of the readout's attention the most attended operators get in each scene, as a heat map."""
    scenes = list(operators)
    largest: dict[str, float] = {}
    for shares in operators.values():
        for name, share in shares.items():
            largest[name] = max(largest.get(name, 0.0), share)
    names = sorted(largest, key=lambda name: -largest[name])[:_SHOWN_OPERATORS]
    values = np.array([[100 * operators[scene].get(name, 0.0) for scene in scenes] for name in names])
    figure, (axes,) = side_by_side(1, 1.2 + 0.24 * len(names))
    _heat_map(axes, values, names, scenes, numbers=False)
    axes.set_xlabel("scene")
    axes.set_ylabel("operator")
    _colour_bar(figure, axes, "attention (%)")
    return figure


def ablation_plot(ablations: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draws what each change costs in points, and what as much noise costs, with 95 % intervals."""
    names = list(ablations)
    figure, (axes,) = side_by_side(1, 1.2 + 0.45 * len(names))
    for index, label in enumerate(("the change", "as much noise")):
        found = [ablations[name]["perturbation"] if index else ablations[name] for name in names]
        losses = [one["score_lost"] for one in found]
        values = np.array([loss["value"] for loss in losses])
        ends = np.abs(np.array([[loss["low"], loss["high"]] for loss in losses]).T - values)
        places = np.arange(len(names)) + (index - 0.5) * 0.3
        axes.errorbar(
            values, places, xerr=ends, fmt="os"[index], color=colour(index), capsize=3, markersize=5, label=label
        )
    axes.axvline(0.0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("score lost (points)")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _heat_map(axes: Axes, values: Floats, rows: Sequence[str], columns: Sequence[str], numbers: bool) -> None:
    """Dark is much; cividis reads the same with every kind of colour vision and in grey."""
    highest = max(float(values.max(initial=0.0)), 1e-9)
    axes.imshow(values, cmap="cividis_r", aspect="auto", vmin=0.0, vmax=highest)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows, fontsize=8 if len(rows) > 8 else 10)
    axes.grid(visible=False)
    if numbers:
        for (row, column), value in np.ndenumerate(values):
            ink = "white" if value > 0.6 * highest else "black"
            axes.annotate(f"{value:.2f}", (column, row), ha="center", va="center", color=ink, fontsize=9)


def _colour_bar(figure: Figure, axes: Axes, label: str) -> None:
    figure.colorbar(axes.images[0], ax=axes, label=label)
