"""Learning curves from what adapters leave behind: finished episodes, and frames over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peers.meter import Progress, frames_at

EPISODES = 500  # a point of the curve is the mean of so many
EVERY = 60.0  # seconds between points

Curve = list[dict[str, float]]


def learning_curve(episodes: Sequence[tuple[float, float, int]], progress: Progress, seconds: float) -> Curve:
    """Points a minute apart: the mean score of the last episodes by then, none older than half of the time.

    Episodes are (seconds, score, steps) in the order of their ends. A point without an episode is left out.
    """
    points = []
    for minute in range(1, int(seconds / EVERY + 1e-9) + 1):
        now = minute * EVERY
        recent = [score for at, score, _ in episodes if now / 2 <= at <= now][-EPISODES:]
        if recent:
            mean = sum(recent) / len(recent)
            points.append({"seconds": now, "frames": frames_at(progress, now), "score": mean, "episodes": len(recent)})
    return points


def score_at(curve: Sequence[dict[str, Any]], frames: float) -> float:
    """The score at so many frames, between two points on the straight line; before the first, the first."""
    before = curve[0]
    for point in curve:
        if point["frames"] >= frames:
            width = point["frames"] - before["frames"]
            share = 1.0 if width <= 0 else (frames - before["frames"]) / width
            return float(before["score"] + share * (point["score"] - before["score"]))
        before = point
    return float(before["score"])
