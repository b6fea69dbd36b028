"""What a run tells of itself while it goes on: rows, episodes, events, the console, and the clock that they go by."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from polybeast_moe.config import RunConfig
from polybeast_moe.learning.learner import UpdateReport
from polybeast_moe.learning.phases import ControllerState, Counters, PhaseEvent, Settings, phase_progress, run_progress
from polybeast_moe.learning.rank_rounds import RankUpdate
from polybeast_moe.monitoring.console import Console
from polybeast_moe.monitoring.make import make_sinks
from polybeast_moe.monitoring.metrics import MetricsWindow
from polybeast_moe.monitoring.resources import FamilyMemory
from polybeast_moe.monitoring.sinks import Sinks
from polybeast_moe.monitoring.status import Status


class Telemetry:
    """Gathers what the trainer hands over, and gives it to the sinks and the console when that is due.

    Attributes:
        window: what has been gathered since the last row, and the last episodes.
    """

    def __init__(self, config: RunConfig, run_dir: Path, console: Console) -> None:
        self.window = MetricsWindow(config.policy.expert_names)
        self._config = config
        self._console = console
        self._sinks = Sinks(make_sinks(config, run_dir), console.log)
        self._memory = FamilyMemory()
        self._skipped = 0
        self._held_out: dict[str, float] = {}
        self._last_row: dict[str, Any] = {}
        self._busy: Mapping[str, float] = {}
        self._began = self._row_at = time.monotonic()

    def begin(self, waited: float, busy: Mapping[str, float]) -> None:
        """Begins the first row: everything has started, which took `waited` seconds and `busy` of the parts'."""
        self._began += waited
        self._row_at = time.monotonic()
        self._busy = busy

    def stand_still(self, seconds: float) -> None:
        """Takes time that has passed off the run's clock."""
        self._began += seconds
        self._row_at += seconds

    def events(self, events: Sequence[PhaseEvent]) -> None:
        """Keeps what the phase controller, a guard or an operator has changed."""
        for event in events:
            self._sinks.event({"time": time.time(), **event.to_dict()})
            if event.key == "phase":
                self._console.log(f"phase {event.new} begins at {event.frames:,} frames, {event.episodes:,} episodes")

    def learnt(self, seen: RankUpdate, settings: Settings, counters: Counters) -> None:
        """Takes in what an update showed; `counters` count it already."""
        for line in seen.messages:
            self._console.log(line)
        self._tell_of_skipped(seen.report, counters.updates)
        for episode in seen.episodes:
            self.window.episode(float(episode["score"]), float(episode["return"]))
        first = counters.episodes - len(seen.episodes) + 1
        self._sinks.episodes(
            [
                {"episode": number, "frames": counters.frames, "phase": settings.phase, **episode}
                for number, episode in enumerate(seen.episodes, start=first)
            ]
        )
        if seen.report.applied:
            self.window.update(seen.frames, seen.report.diagnostics, seen.report.mean_alpha)
        else:
            self.window.update(seen.frames, {})  # played and consumed, but it showed nothing

    def spent(self, update: float, busy: Mapping[str, float]) -> None:
        """Takes in the seconds of an update, and those that the other parts have worked since the beginning."""
        self.window.spent("update", update)
        for part, seconds in busy.items():
            self.window.spent(part, seconds - self._busy[part])
        self._busy = busy

    def held_out(self, figures: Mapping[str, float]) -> None:
        """Takes in columns of the next row that an evaluation gave."""
        self._held_out |= figures

    def row(self, settings: Settings, counters: Counters, restarts: int, *, due: bool) -> None:
        """Writes a row of metrics when one is `due`, or after a while."""
        now = time.monotonic()
        if due or now - self._row_at >= self._config.monitoring.every_seconds:
            self._row_at = now
            health = {"memory_bytes": self._memory.read(), "restarts": restarts}
            columns = {**self._columns(settings, counters, now), **health, **self._held_out}
            self._last_row = self.window.row(updates=counters.updates, **columns)
            self._held_out = {}
            self._sinks.metrics(self._last_row)

    def status(
        self, settings: Settings, counters: Counters, controller: ControllerState, snapshot_at: float | None
    ) -> Status:
        """Returns where the run stands; `snapshot_at` is when the newest snapshot was taken."""
        now, scores, phases = time.monotonic(), self.window.scores, self._config.phases
        return Status.from_row(
            {**self._last_row, **self._columns(settings, counters, now)},
            self._config.policy.expert_names,
            fraction=run_progress(phases, controller, counters),
            phase_fraction=phase_progress(phases, controller, counters),
            median_score=statistics.median(scores) if scores else None,
            median_return=statistics.median(self.window.returns) if scores else None,
            parts_take_turns=self._config.runtime.mode == "inline",
            snapshot_age_seconds=now - snapshot_at if snapshot_at is not None else None,
        )

    def state(self) -> dict[str, Any]:
        """Returns what a snapshot keeps. Raises OSError where the tables cannot be written."""
        return {
            "wall_seconds": time.monotonic() - self._began,
            "skipped_updates": self._skipped,
            "metrics_window": self.window.state(),
            "sinks": self._sinks.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`, whose window is restored already. Raises UserError where files cannot be cut back."""
        self._skipped = int(state["skipped_updates"])
        self._began = time.monotonic() - state["wall_seconds"]
        self._sinks.restore(state["sinks"])

    def close(self) -> None:
        """Writes what is still to be written."""
        self._sinks.close()

    def _columns(self, settings: Settings, counters: Counters, now: float) -> dict[str, Any]:
        """Where the run stands, under the names of `metrics.csv`."""
        return {
            "frames": counters.frames,
            "episodes": counters.episodes,
            "wall_seconds": now - self._began,
            "phase": settings.phase,
            "routing": settings.routing,
            "router_temperature": settings.temperature,
            "learning_rate": settings.learning_rate,
            "skipped_updates": self._skipped,
        }

    def _tell_of_skipped(self, report: UpdateReport, number: int) -> None:
        if not report.applied:
            self._skipped += 1
            self._console.log(
                f"update {number} skipped: its loss or gradient was not finite ({self._skipped} since the start)"
            )
        if report.rolled_back:
            self._console.log("too many updates were skipped in a row: the last good weights are back")
