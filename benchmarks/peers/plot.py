"""The drawing of docs/results/benchmarks.md: scores over minutes and over frames, a band of the seeds' range an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from peers.plan import Measurement
from polybeast_moe.evaluation.plotting import LINES, colour, from_zero, side_by_side

DOTS_PER_INCH = 100


def draw(measurement: Measurement, rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draws finished rows of learning into a PNG file."""
    figure, (over_time, over_frames) = side_by_side(2, 4.0)
    for index, arm in enumerate(measurement.arms):
        curves = [row["curve"] for row in rows if row["arm"] == arm.name]
        if not curves:
            continue
        length = min(len(curve) for curve in curves)
        columns = {
            key: np.array([[point[key] for point in curve[-length:]] for curve in curves])
            for key in ("seconds", "frames", "score")
        }
        style = {"color": colour(index), "linestyle": LINES[index % len(LINES)], "linewidth": 1.4}
        low, high = columns["score"].min(0), columns["score"].max(0)
        for axes, across in (
            (over_time, columns["seconds"].mean(0) / 60),
            (over_frames, columns["frames"].mean(0) / 1e6),
        ):
            axes.plot(across, columns["score"].mean(0), label=arm.name, **style)
            axes.fill_between(across, low, high, color=colour(index), alpha=0.15, linewidth=0)
    over_time.set_xlabel("minutes since the command")
    over_frames.set_xlabel("frames (millions)")
    over_frames.set_xscale("log")
    over_time.set_ylabel("mean score of the last 500 episodes (points)")
    from_zero(over_time)
    from_zero(over_frames)
    over_time.legend(fontsize=7, frameon=False, loc="upper left")
    figure.savefig(file, dpi=DOTS_PER_INCH, metadata={"Software": None})
