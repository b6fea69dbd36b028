"""Scalars that are constant or move over a phase; pure functions of the phase's progress."""

from __future__ import annotations

import math

from polybeast_moe.config import Ramp, Schedule


def value_at(schedule: Schedule, progress: float) -> float:
    """Returns the schedule's value at `progress`, 0 at the phase's start and 1 at its end (both reached exactly).

    Linear moves by equal steps, cosine by half a cosine wave (slow at both ends; Loshchilov & Hutter 2017), exponential
    by equal factors.
    """
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


def describe(schedule: Schedule) -> str:
    """Returns how an event shows a schedule: ``linear 1 to 0.5``, or the constant."""
    if not isinstance(schedule, Ramp):
        return f"{schedule:g}"
    return f"{schedule.shape} {schedule.from_:g} to {schedule.to:g}"
