"""What is known of a run at one moment, and how long it will still take."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from polybeast_moe.monitoring.columns import PIPELINE_PARTS, expert_column


@dataclass(frozen=True)
class Status:
    """What the screen shows of a run at one moment. None: not known yet.

    Fractions and shares lie in [0, 1], entropies are in nats, times in seconds, memory in bytes. `fraction` is of the
    whole run, `phase_fraction` of the phase, `wall_seconds` the run's time over all its resumptions.
    """

    frames: int
    episodes: int
    fraction: float
    wall_seconds: float
    phase: str
    phase_fraction: float
    routing: str
    router_temperature: float
    learning_rate: float | None = None
    frames_per_second: float | None = None
    part_shares: Mapping[str, float] = field(default_factory=dict)  # engine, inference, update: shares of wall time
    parts_take_turns: bool = False  # inline: one process does all, so that nobody waits for anybody
    mean_score: float | None = None  # of the last 100 episodes, as the next three
    median_score: float | None = None
    mean_return: float | None = None
    median_return: float | None = None
    alpha_entropy: float | None = None
    usage_entropy: float | None = None
    routing_information: float | None = None
    expert_shares: Mapping[str, float] = field(default_factory=dict)  # expert -> share of the mean alpha
    losses: Mapping[str, float] = field(default_factory=dict)  # name -> value, weights applied
    policy_entropy: float | None = None
    policy_lag: float | None = None  # updates
    memory_bytes: int | None = None  # of all processes
    restarts: int | None = None  # processes replaced
    snapshot_age_seconds: float | None = None

    @classmethod
    def from_row(cls, row: Mapping[str, Any], experts: Sequence[str], **rest: Any) -> Status:
        """Returns a status with the figures of a row of `metrics.csv`; `rest` gives the fields that no row holds."""
        copied = ("frames", "episodes", "wall_seconds", "phase", "routing", "router_temperature", "learning_rate")
        figures = ("frames_per_second", "alpha_entropy", "usage_entropy", "routing_information", "policy_entropy")
        health = ("policy_lag", "memory_bytes", "restarts")
        fields: dict[str, Any] = {name: row.get(name) for name in (*copied, *figures, *health)}
        fields["mean_score"], fields["mean_return"] = row.get("mean_episode_score"), row.get("mean_episode_return")
        fields["part_shares"] = {part: row[f"{part}_share"] for part in PIPELINE_PARTS if f"{part}_share" in row}
        fields["expert_shares"] = {name: row.get(expert_column(name), 0.0) for name in experts}
        fields["losses"] = {name.removeprefix("loss_"): row[name] for name in row if name.startswith("loss_")}
        return cls(**{**fields, **rest})


class TimeLeft:
    """Estimates the time left from how fast the run went lately, for early phases may be faster than late ones."""

    def __init__(self, window_seconds: float = 60.0) -> None:
        self._window_seconds = window_seconds
        self._readings: deque[tuple[float, float]] = deque()

    def read(self, fraction: float, wall_seconds: float) -> float | None:
        """Takes in a reading and returns the seconds left; None while nothing can be said."""
        readings = self._readings
        readings.append((wall_seconds, fraction))
        while len(readings) > 2 and wall_seconds - readings[1][0] > self._window_seconds:
            readings.popleft()
        (begin, before), (end, after) = readings[0], readings[-1]
        if after <= before or end <= begin:
            return None
        return (1.0 - after) * (end - begin) / (after - before)
