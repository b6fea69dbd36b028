"""Scalars that are constant or move over a phase; pure functions of the phase's progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from polybeast_moe.config import Piecewise, Ramp, Schedule


def value_at(schedule: Schedule, progress: float) -> float:
    """Returns the schedule's value at `progress`, 0 at the phase's start and 1 at its end (both reached exactly).

    Linear moves by equal steps, cosine by half a cosine wave (slow at both ends; Loshchilov & Hutter 2017), exponential
    by equal factors; piecewise goes in straight lines from point to point.
    """
    if isinstance(schedule, Piecewise):
        return _between(schedule.points, progress)
    if not isinstance(schedule, Ramp):
        return float(schedule)
    start, end = schedule.from_, schedule.to
    if progress <= 0:
        return start
    if progress >= 1:
        return end
    if schedule.shape == "exponential":
        return float(start * (end / start) ** progress)
    share = progress if schedule.shape == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * share


def _between(points: Sequence[tuple[float, float]], progress: float) -> float:
    if progress <= 0:
        return points[0][1]
    for (start, low), (end, high) in pairwise(points):
        if progress < end:
            return low + (high - low) * (progress - start) / (end - start)
    return points[-1][1]


def describe(schedule: Schedule) -> str:
    """Returns how an event shows a schedule: ``linear 1 to 0.5``, or the constant."""
    if isinstance(schedule, Piecewise):
        return "piecewise " + " to ".join(f"{value:g}" for _, value in schedule.points)
    if not isinstance(schedule, Ramp):
        return f"{schedule:g}"
    return f"{schedule.shape} {schedule.from_:g} to {schedule.to:g}"
