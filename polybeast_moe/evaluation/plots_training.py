"""The plots of a report that show the router, the learner and the machine over the course of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from polybeast_moe.config import Bound
from polybeast_moe.evaluation.plotting import (
    COLOURS,
    GREY,
    LINES,
    colour,
    count_axis,
    from_zero,
    hatch,
    marker,
    new_plot,
    over_frames,
    phase_spans,
)
from polybeast_moe.evaluation.report_data import RunData
from polybeast_moe.evaluation.statistics import Floats
from polybeast_moe.evaluation.tables import bound_ends

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROUTER = (
    ("alpha_entropy", "alpha entropy"),
    ("usage_entropy", "usage entropy"),
    ("routing_information", "information"),
)
_LEARNER = (
    (
        "losses",
        (
            ("loss_policy", "policy"),
            ("loss_baseline", "baseline"),
            ("loss_entropy", "entropy"),
            ("loss_alpha_entropy", "alpha entropy"),
            ("loss_load_balance", "load balance"),
        ),
    ),
    (
        "losses on experts",
        tuple(
            (f"loss_{name}", name.replace("_", " "))
            for name in (
                "expert_diversity",
                "semantic_orthogonality",
                "graph_alignment",
                "temporal_consistency",
                "overlap",
                "graph_smoothing",
            )
        ),
    ),
    ("entropy (nats)", (("policy_entropy", "policy entropy"),)),
    ("share", (("explained_variance", "explained variance"), ("rho_clip_share", "ratios clipped"))),
    ("gradient norm", (("grad_norm", "gradient norm"),)),
)
_MACHINE = {"frames/s": 1.0, "busy (%)": 100.0, "lag (updates)": 1.0, "memory (GiB)": 2.0**-30, "restarts": 1.0}
_MACHINE_COLUMNS: Mapping[str, Sequence[tuple[str, str]]] = {
    "frames/s": (("frames_per_second", "frames/s"),),
    "busy (%)": tuple((f"{part}_share", part) for part in ("engine", "inference", "update")),
    "lag (updates)": (("policy_lag", "policy lag"),),
    "memory (GiB)": (("memory_bytes", "all processes"),),
    "restarts": (("restarts", "restarts so far"),),
}


def router_plot(run: RunData) -> Figure:
    """Draws entropies, information and temperature over frames."""
    figure, (above, below) = new_plot(2, 5.6, heights=(2.2, 1))
    _curves(above, run, _ROUTER)
    if run.experts:
        limit = float(np.log(len(run.experts)))
        above.axhline(limit, color=GREY, linewidth=0.8, linestyle=":")
        above.annotate(
            f"ln {len(run.experts)}", (1, limit), xycoords=("axes fraction", "data"), xytext=(3, -3),
            textcoords="offset points", fontsize=8, color=GREY,
        )  # fmt: skip
    _draw_targets(above, run)
    from_zero(above)
    above.set_ylabel("nats")
    over_frames(above, run)
    frames, temperature = _millions(run), run.metrics.floats("router_temperature")
    below.plot(frames, temperature, color=COLOURS[3], marker=marker(frames))
    from_zero(below)
    below.set_ylabel("temperature")
    over_frames(below, run, names=False)
    return figure


def experts_plot(run: RunData) -> Figure:
    """Draws the experts' shares over frames, stacked to 100 %."""
    figure, (axes,) = new_plot(1, 3.8)
    frames = _millions(run)
    shares = np.array([np.nan_to_num(run.metrics.floats(f"expert_{name}_share")) for name in run.experts])
    if len(frames) == 1:  # an area needs two ends
        frames, shares = np.array([0.0, frames[0]]), np.repeat(shares, 2, axis=1)
    colours = [colour(index) for index in range(len(run.experts))]
    areas = axes.stackplot(frames, 100 * shares, labels=run.experts, colors=colours, alpha=0.75)
    for index, area in enumerate(areas):
        area.set_hatch(hatch(index))
        area.set_edgecolor("white")
    axes.set_ylim(0, 100)
    axes.set_ylabel("share of mean alpha (%)")
    over_frames(axes, run, stacked=True)
    return figure


def learner_plot(run: RunData) -> Figure:
    """Draws losses, the policy's entropy, what the baseline explains and the gradient's norm over frames."""
    panels = [(label, used) for label, series in _LEARNER if (used := _used(run, series))]
    figure, drawings = new_plot(len(panels), 1.7 * len(panels) + 0.6)
    for index, (axes, (label, series)) in enumerate(zip(drawings, panels, strict=True)):
        _curves(axes, run, series)
        axes.set_ylabel(label, fontsize=8)
        over_frames(axes, run, names=index == 0)
    figure.align_ylabels()
    return figure


def machine_plot(run: RunData) -> Figure:
    """Draws frames a second, how busy each part was, lag, memory and restarts over frames."""
    frames = _millions(run)
    panels = [(name, draw) for name, draw in _MACHINE.items() if _present(run, _MACHINE_COLUMNS[name])]
    figure, drawings = new_plot(len(panels), 1.7 * len(panels) + 0.6)
    for index, (axes, (name, scale)) in enumerate(zip(drawings, panels, strict=True)):
        for number, (column, label) in enumerate(_present(run, _MACHINE_COLUMNS[name])):
            values = run.metrics.floats(column) * scale
            axes.plot(frames, values, LINES[number % 4], color=colour(number), label=label, marker=marker(frames))
        from_zero(axes)
        if name in ("frames/s", "restarts"):
            count_axis(axes)
        axes.set_ylabel(name, fontsize=8)
        over_frames(axes, run, names=index == 0)
    figure.align_ylabels()
    return figure


def has_learner_plot(run: RunData) -> bool:
    """Whether the run's metrics hold anything that `learner_plot` shows."""
    return any(_used(run, series) for _, series in _LEARNER)


def has_machine_plot(run: RunData) -> bool:
    """Whether the run's metrics hold anything that `machine_plot` shows."""
    return any(_present(run, series) for series in _MACHINE_COLUMNS.values())


def _present(run: RunData, series: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(column, label) for column, label in series if np.isfinite(run.metrics.floats(column)).any()]


def _used(run: RunData, series: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is present, without losses that have no weight: those are 0 all the time."""
    return [
        (column, label)
        for column, label in _present(run, series)
        if not column.startswith("loss_") or np.nan_to_num(run.metrics.floats(column)).any()
    ]


def _curves(axes: Axes, run: RunData, series: Sequence[tuple[str, str]]) -> None:
    frames = _millions(run)
    for index, (column, label) in enumerate(series):
        values = run.metrics.floats(column)
        axes.plot(frames, values, LINES[index % 4], color=colour(index), label=label, marker=marker(frames))


def _millions(run: RunData) -> Floats:
    return run.metrics.floats("frames") / 1e6


def _draw_targets(axes: Axes, run: RunData) -> None:
    targets: Mapping[str, Mapping[str, Any]] = run.config.get("targets", {})
    for phase, begin, end in phase_spans(run):
        if "alpha_entropy" in targets.get(phase, {}):
            low, high = bound_ends(Bound.model_validate(targets[phase]["alpha_entropy"]))
            limit = float(np.log(max(len(run.experts), 2)))
            low, high = max(low, 0.0), min(high, limit)
            axes.fill_between([begin / 1e6, end / 1e6], low, high, color=COLOURS[4], alpha=0.3, linewidth=0, zorder=0)
