"""What happens between two rows of `metrics.csv`, gathered into one row.

Means over updates are weighted by frames; what the router's weights say is of the whole window (`learning.usage`).
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from polybeast_moe.learning.usage import routing_figures
from polybeast_moe.monitoring.columns import PIPELINE_PARTS, expert_column

LAST_EPISODES = 100  # what mean_episode_score and mean_episode_return look back on


class MetricsWindow:
    """Gathers updates, time and episodes, and turns them into one row at a time.

    Pure: it reads no clock. Its state is plain data, so that a resumed run writes the rows that it would have written.
    """

    _frames: int
    _sums: dict[str, tuple[float, int]]  # column -> sum of value x frames, frames
    _alpha: list[float]  # [E] sum of mean alpha x frames
    _alpha_frames: int
    _seconds: dict[str, float]

    def __init__(self, experts: Sequence[str]) -> None:
        self._experts = tuple(experts)
        self._scores: deque[float] = deque(maxlen=LAST_EPISODES)
        self._returns: deque[float] = deque(maxlen=LAST_EPISODES)
        self._wall_seconds = 0.0  # of the row before
        self._clear()

    def update(self, frames: int, diagnostics: Mapping[str, float], mean_alpha: Sequence[float] | None = None) -> None:
        """Takes in one update of the learner.

        Args:
            frames: the frames it consumed, the weight of its figures.
            diagnostics: column -> mean over those frames; `alpha_entropy` among them.
            mean_alpha: [E] the mean of the router's weights over the same frames.
        """
        self._frames += frames
        for key, value in diagnostics.items():
            total, weight = self._sums.get(key, (0.0, 0))
            self._sums[key] = (total + float(value) * frames, weight + frames)
        if mean_alpha is not None:
            if len(mean_alpha) != len(self._experts):
                raise ValueError(f"mean_alpha has {len(mean_alpha)} weights for {len(self._experts)} experts")
            self._alpha = [total + float(a) * frames for total, a in zip(self._alpha, mean_alpha, strict=True)]
            self._alpha_frames += frames

    def spent(self, part: str, seconds: float) -> None:
        """Adds wall time spent on `part`: engine, inference or update."""
        self._seconds[part] += seconds

    def episode(self, score: float, episode_return: float) -> None:
        """Takes in one finished episode."""
        self._scores.append(float(score))
        self._returns.append(float(episode_return))

    @property
    def frames(self) -> int:
        """Frames gathered since the last row."""
        return self._frames

    @property
    def scores(self) -> tuple[float, ...]:
        """The scores of the last 100 episodes, oldest first."""
        return tuple(self._scores)

    @property
    def returns(self) -> tuple[float, ...]:
        """The returns of the last 100 episodes, oldest first."""
        return tuple(self._returns)

    def episode_means(self) -> dict[str, float]:
        """Returns the means over the last 100 episodes, under the names of `metrics.csv`; none before the first."""
        if not self._scores:
            return {}
        return {
            "mean_episode_score": statistics.fmean(self._scores),
            "mean_episode_return": statistics.fmean(self._returns),
        }

    def row(self, *, frames: int, episodes: int, updates: int, wall_seconds: float, **columns: Any) -> dict[str, Any]:
        """Returns a row of `metrics.csv` and begins the next window.

        Args:
            frames: total of the run.
            episodes: total of the run.
            updates: total of the run.
            wall_seconds: total time of the run, over all its resumptions.
            **columns: further columns as they stand: phase, routing, router_temperature, learning_rate, ...

        Figures that nothing was gathered for are left out.
        """
        elapsed = wall_seconds - self._wall_seconds
        row: dict[str, Any] = {
            "frames": frames,
            "episodes": episodes,
            "updates": updates,
            "wall_seconds": wall_seconds,
            **columns,
            **{key: total / weight for key, (total, weight) in self._sums.items() if weight},
            **self._routing_figures(),
            **self._time_figures(elapsed),
        }
        row |= self.episode_means()
        self._wall_seconds = wall_seconds
        self._clear()
        return row

    def state(self) -> dict[str, Any]:
        """Returns everything gathered so far, as JSON holds it."""
        return {
            "scores": list(self._scores),
            "returns": list(self._returns),
            "wall_seconds": self._wall_seconds,
            "frames": self._frames,
            "sums": {key: list(pair) for key, pair in self._sums.items()},
            "alpha": self._alpha,
            "alpha_frames": self._alpha_frames,
            "seconds": dict(self._seconds),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up where `state` was taken."""
        self._scores = deque(state["scores"], maxlen=LAST_EPISODES)
        self._returns = deque(state["returns"], maxlen=LAST_EPISODES)
        self._wall_seconds = state["wall_seconds"]
        self._frames = state["frames"]
        self._sums = {key: (total, weight) for key, (total, weight) in state["sums"].items()}
        self._alpha = list(state["alpha"])
        self._alpha_frames = state["alpha_frames"]
        self._seconds = dict(state["seconds"])

    def begin_anew(self) -> None:
        """Forgets the row under way and the run's clock, for a run that begins with another one's; episodes stay."""
        self._wall_seconds = 0.0
        self._clear()

    def _clear(self) -> None:
        self._frames = 0
        self._sums = {}
        self._alpha = [0.0] * len(self._experts)
        self._alpha_frames = 0
        self._seconds = dict.fromkeys(PIPELINE_PARTS, 0.0)

    def _routing_figures(self) -> dict[str, float]:
        if not self._alpha_frames:
            return {}
        shares = [total / self._alpha_frames for total in self._alpha]
        figures = {expert_column(expert): share for expert, share in zip(self._experts, shares, strict=True)}
        total, weight = self._sums["alpha_entropy"]
        return figures | routing_figures(shares, total / weight)

    def _time_figures(self, elapsed: float) -> dict[str, float]:
        figures = {}
        if elapsed > 0:
            figures["frames_per_second"] = self._frames / elapsed
            figures.update({f"{part}_share": seconds / elapsed for part, seconds in self._seconds.items()})
        if self._frames:
            figures.update({f"{part}_us_per_frame": s * 1e6 / self._frames for part, s in self._seconds.items()})
        return figures
